package card

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestInspectOpenSC(t *testing.T) {
	dir := tree(t, map[string]string{
		"good.conf": "app default {\n\tenable_default_driver = true;\n\treader_driver pcsc {\n\t\tdisconnect_action = reset;\n\t}\n}\n",
		"bad.conf":  "app default { } }",
	})
	t.Setenv("OPENSC_CONF", filepath.Join(dir, "good.conf"))
	conf := InspectOpenSC("/usr/lib/opensc-pkcs11.so")
	if !conf.Private || conf.Err != nil || conf.Path != filepath.Join(dir, "good.conf") {
		t.Errorf("%+v", conf)
	}
	for _, want := range []OpenSCSetting{
		{App: "default", Key: "enable_default_driver", Values: []string{"true"}},
		{App: "default", Place: "reader_driver pcsc", Key: "disconnect_action", Values: []string{"reset"}},
	} {
		if !slices.ContainsFunc(conf.Settings, func(s OpenSCSetting) bool {
			return s.App == want.App && s.Place == want.Place && s.Key == want.Key && slices.Equal(s.Values, want.Values) && !s.Hidden
		}) {
			t.Errorf("%+v is not among %+v", want, conf.Settings)
		}
	}
	t.Setenv("OPENSC_CONF", filepath.Join(dir, "bad.conf"))
	if conf := InspectOpenSC("/usr/lib/opensc-pkcs11.so"); conf.Err == nil {
		t.Errorf("a broken file: %+v", conf)
	}
}
