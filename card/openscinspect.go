package card

import "os"

// OpenSCConf is OpenSC's configuration as a module's children find it.
type OpenSCConf struct {
	Path     string // "" where there is none
	Private  bool   // OPENSC_CONF names it: the system's own is not read
	Err      error  // why it cannot be read; OpenSC then goes by its defaults
	Settings []OpenSCSetting
}

// OpenSCSetting is one option that is set for the PKCS#11 module.
type OpenSCSetting struct {
	App    string // the app block's name, as "default"
	Place  string // the block in it, as "reader_driver pcsc"; "" = the app block itself
	Key    string
	Values []string
	Hidden bool // without effect: another block of this name counts
}

// InspectOpenSC reads the configuration of the OpenSC module at path, to be
// shown. It loads no module.
func InspectOpenSC(path string) OpenSCConf {
	name, private := openscFile(path)
	if _, err := os.Stat(name); err != nil && !private {
		return OpenSCConf{}
	}
	conf := OpenSCConf{Path: name, Private: private}
	file, err := readOpenSC(name)
	if err != nil {
		conf.Err = err
		return conf
	}
	for _, s := range file.Settings(openscApps(path)...) {
		conf.Settings = append(conf.Settings, OpenSCSetting{s.App, s.Place.String(), s.Key, s.Values, s.Hidden})
	}
	return conf
}
