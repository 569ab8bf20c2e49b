//go:build !unix

package database

// Where rights cannot be asked for beforehand, SQLite's own error has to do.

func accessFile(string) error { return nil }

func accessDir(string) error { return nil }
