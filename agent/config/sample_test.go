package config

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// docs/kortti.toml holds the defaults, its examples are right too, and it has
// every key that does something.
func TestSample(t *testing.T) {
	sample, err := os.ReadFile("../../docs/kortti.toml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	load := func(text string) *Config {
		t.Helper()
		c, err := Load(write(t, dir, "kortti.toml", text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c, empty := load(string(sample)), load("")
	c.Fixed = empty.Fixed
	if !reflect.DeepEqual(c, empty) {
		t.Errorf("%+v are not the defaults, which are %+v", c, empty)
	}

	s := httptest.NewTLSServer(nil) // for its certificate
	defer s.Close()
	write(t, dir, "private-ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	examples := regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAll(sample, []byte("$1"))
	h, ok := load(string(examples)).Hosts.Lookup("asiointi.example.fi", "443")
	if !ok || h.Address == "" || h.Roots == nil {
		t.Errorf("%+v", h)
	}
	var tree map[string]any
	if err := toml.Unmarshal(examples, &tree); err != nil {
		t.Fatal(err)
	}
	checkKeys(t, "", reflect.TypeFor[file](), tree)
}

// checkKeys fails for each key of a configuration's type that tree lacks.
func checkKeys(t *testing.T, path string, of reflect.Type, tree map[string]any) {
	for i := range of.NumField() {
		field := of.Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("toml"), ",") // omitempty
		value, there := tree[key]
		if !there {
			t.Errorf("the sample lacks %s%s", path, key)
			continue
		}
		tables, _ := value.([]any)
		switch table, _ := value.(map[string]any); {
		case field.Type.Kind() == reflect.Struct:
			checkKeys(t, path+key+".", field.Type, table)
		case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct && len(tables) > 0:
			table, _ = tables[0].(map[string]any)
			checkKeys(t, path+key+".", field.Type.Elem(), table)
		}
	}
}
