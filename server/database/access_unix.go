//go:build unix

package database

import "golang.org/x/sys/unix"

// accessFile says why this process may not read and write a file, nil if it may.
func accessFile(path string) error { return access(path, unix.R_OK|unix.W_OK) }

// accessDir says why this process may not make files in a directory.
func accessDir(path string) error { return access(path, unix.W_OK|unix.X_OK) }

// access asks for the effective user, whose rights count when files are opened.
func access(path string, mode uint32) error {
	return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}
