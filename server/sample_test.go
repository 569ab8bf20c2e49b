package server_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/kortti-id/kortti/fineid"
	"github.com/kortti-id/kortti/server"
)

// docs/kortti-server.toml is right as it stands, its examples too, and it has
// every key.
func TestSample(t *testing.T) {
	sample, err := os.ReadFile("../docs/kortti-server.toml")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, native) // for its files
	load := func(text []byte) server.Config {
		t.Helper()
		c, err := server.Load(s.write("sample.toml", text))
		s.must(err)
		return c
	}

	c, defaults := load(sample), load(nil)
	for _, pair := range [][2]any{
		{c.Trust.Purpose, defaults.Trust.Purpose}, {c.Users.Store, defaults.Users.Store}, {c.Users.Map, defaults.Users.Map},
		{c.Login, defaults.Login}, {c.Session, defaults.Session}, {c.Audit, defaults.Audit},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%+v is not the default, which is %+v", pair[0], pair[1])
		}
	}
	c.Trust.Roots = []string{s.dir + "/roots.pem"} // the test's CAs are not pinned
	if problems := server.Check(c); len(problems) > 0 {
		t.Error(problems)
	}

	examples := regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAll(sample, []byte("$1"))
	load(examples)
	var tree map[string]any
	s.must(toml.Unmarshal(examples, &tree))
	checkKeys(t, "", reflect.TypeFor[server.Config](), tree)
}

// The configuration in docs/first-server.md is right.
func TestFirstServer(t *testing.T) {
	page, err := os.ReadFile("../docs/first-server.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, native) // for its files
	s.must(os.Symlink(".", s.dir+"/cards-pki"))
	_, rest, _ := strings.Cut(string(page), "cat > kortti-server.toml <<'END'\n")
	text, _, found := strings.Cut(rest, "\nEND\n")
	if !found {
		t.Fatal("the page has no configuration")
	}
	c, err := server.Load(s.write("first.toml", []byte(text)))
	s.must(err)
	for _, problem := range server.Check(c) {
		if !problem.Warning {
			t.Error(problem)
		}
	}
	if first := c.Trust.Issuers[0]; !slices.ContainsFunc(s.pki.Issuers(), func(i fineid.Issuer) bool {
		return i.CN == first.CN && i.Class == first.Class && i.Family == first.Family
	}) {
		t.Errorf("no CA of the test PKI is %+v", first)
	}
}

// checkKeys fails for each key of a configuration's type that tree lacks.
func checkKeys(t *testing.T, path string, of reflect.Type, tree map[string]any) {
	for i := range of.NumField() {
		field := of.Field(i)
		key := field.Tag.Get("toml")
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
