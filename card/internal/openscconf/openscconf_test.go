package openscconf

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

var (
	appBlock = Place{}
	pkcs15   = Place{Block: "framework", Label: "pkcs15"}
	pcsc     = Place{Block: "reader_driver", Label: "pcsc"}
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // of "k" in "app default"
	}{
		"plain":                    {"app default { k = v; }", []string{"v"}},
		"quoted":                   {`app "default" { "k" = "a b;{}#"; }`, []string{"a b;{}#"}},
		"list":                     {"app default { k = a, \"b c\"\n\t, d; }", []string{"a", "b c", "d"}},
		"repeated options add up":  {"app default { k = a; K = b; }", []string{"a", "b"}},
		"no value":                 {"app default { k = ; }", nil},
		"comments":                 {"# k = x;\napp default { # y\n\n# k = z;\n k = v; # w\n}", []string{"v"}},
		"case of names":            {"APP Default { K = V; }", []string{"V"}},
		"windows line ends":        {"app default {\r\n\tk = v;\r\n}\r\n", []string{"v"}},
		"missing semicolon":        {"app default { k = v }", []string{"v"}},
		"missing semicolon, next":  {"app default { k = v other = w; }", []string{"v"}},
		"blocks open at the end":   {"app default { x y { } k = v;", []string{"v"}},
		"no space around =":        {"app default { k=v; }", nil}, // one word: OpenSC does not see it
		"string never closed":      {"app default { k = \"v\n ; }", []string{"v\n"}},
		"string open at the end":   {"app default { k = \"v", []string{"v\xff"}},
		"quotation mark in a word": {`app default { k = a"b"; }`, []string{`a"b"`}},
		"brace in a word":          {"app default { k = v}; }", []string{"v}"}},
		"first app block only":     {"app default { } app default { k = v; }", nil},
		"another application":      {"app other { k = v; }", nil},
		"option outside":           {"k = v; app default { }", nil},
		"labels after a comma":     {"app default, x { k = v; }", []string{"v"}},
	} {
		f, err := Parse([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := f.Effective(appBlock, "k", "default"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// OpenSC 0.23 refuses these files as a whole; a comment or an empty line after
// a key crashes it, and it reads over a zero byte.
func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"two labels":             "app default x { }",
		"no space before {":      "app default{ k = v; }", // the word "default{", then another
		"block without a name":   "{ }",
		"value without a name":   "= v;",
		"closed twice":           "app default { } }",
		"block after a value":    "k = v { }",
		"end after a key":        "app default { k }",
		"end after =":            "app default { k = }",
		"comma first":            ", k = v;",
		"comment after a key":    "app default { k # c\n = v; }",
		"empty line after a key": "app default { k\n\n = v; }",
		"comment in a list":      "app default { k = a, # c\n b; }",
		"empty line in a list":   "app default { k = a,\n\n b; }",
		"too deep":               strings.Repeat("a b {", maxDepth+1),
		"zero byte":              "app default { k = \x00v; }",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%s: err = %v, want a refusal that names the line", name, err)
		}
	}
	if _, err := Parse([]byte("app default {\n\n\tk = v;\n}\n}")); err == nil || !strings.HasPrefix(err.Error(), "line 5:") {
		t.Errorf("err = %v, want line 5", err)
	}
}

const system = `
app opensc-pkcs11 {
	ignored_readers = "SPR 532";
	reader_driver pcsc { enable_pinpad = false; }
}
app default {
	ignored_readers = "CardMan 1021";
	reader_driver pcsc { disconnect_action = reset; }
	framework pkcs15 { use_file_caching = public; }
	framework pkcs15 { use_pin_caching = true; }
}
app default { card_drivers = myeid; }
framework pkcs15 { use_pin_caching = false; }
debug = 3;
`

func TestEffective(t *testing.T) {
	f := parse(t, system)
	apps := []string{"/usr/bin/kortti", "opensc-pkcs11", "default"}
	for _, c := range []struct {
		place Place
		key   string
		want  []string
	}{
		{pcsc, "enable_pinpad", []string{"false"}},
		{pcsc, "disconnect_action", nil}, // hidden by the block in app opensc-pkcs11
		{pkcs15, "use_file_caching", []string{"public"}},
		{pkcs15, "USE_FILE_CACHING", []string{"public"}},
		{pkcs15, "use_pin_caching", nil}, // hidden by the first block
		{Place{Block: "framework"}, "use_file_caching", []string{"public"}},
	} {
		if got := f.Effective(c.place, c.key, apps...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v %s = %q, want %q", c.place, c.key, got, c.want)
		}
	}
	var shown []string
	for _, s := range f.Settings(apps...) {
		line := s.App + "/" + s.Place.String() + "/" + s.Key
		if s.Hidden {
			line += " hidden"
		}
		shown = append(shown, line)
	}
	want := []string{
		"//debug hidden", "/framework pkcs15/use_pin_caching hidden",
		"opensc-pkcs11//ignored_readers", "opensc-pkcs11/reader_driver pcsc/enable_pinpad",
		"default//ignored_readers", "default/reader_driver pcsc/disconnect_action hidden",
		"default/framework pkcs15/use_file_caching", "default/framework pkcs15/use_pin_caching hidden",
		"default//card_drivers hidden",
	}
	if !reflect.DeepEqual(shown, want) {
		t.Errorf("settings:\n%s\nwant:\n%s", strings.Join(shown, "\n"), strings.Join(want, "\n"))
	}
}

func TestSet(t *testing.T) {
	for name, text := range map[string]string{
		"nothing there":          "",
		"default only":           "app default { framework pkcs15 { use_pin_caching = true; } }",
		"application over it":    "app opensc-pkcs11 { framework pkcs15 { } } app default { }",
		"application without it": "app opensc-pkcs11 { framework other { } } app default { }",
		"program over it":        "app /usr/bin/kortti { framework pkcs15 { use_pin_caching = yes, no; } }",
		"twice":                  "app default { framework pkcs15 { } framework pkcs15 { use_pin_caching = true; } }",
	} {
		f := parse(t, text)
		if err := f.Set(pkcs15, "use_pin_caching", "false", "/usr/bin/kortti", "opensc-pkcs11", "default"); err != nil {
			t.Fatal(err)
		}
		f = parse(t, string(f.Write()))
		// With and without the program's own block, as OpenSC 0.27 and 0.23.
		for _, apps := range [][]string{{"/usr/bin/kortti", "opensc-pkcs11", "default"}, {"opensc-pkcs11", "default"}} {
			if got := f.Effective(pkcs15, "use_pin_caching", apps...); !reflect.DeepEqual(got, []string{"false"}) {
				t.Errorf("%s, %v: %q", name, apps, got)
			}
		}
	}
	f := parse(t, system)
	if err := f.Set(pkcs15, "use_pin_caching", "false", "opensc-pkcs11", "default"); err != nil {
		t.Fatal(err)
	}
	if got := f.Effective(pkcs15, "use_file_caching", "opensc-pkcs11", "default"); !reflect.DeepEqual(got, []string{"public"}) {
		t.Errorf("another option of the block is %q after Set", got)
	}
}

func TestAdd(t *testing.T) {
	f := parse(t, system)
	for _, reader := range []string{"Virtual PCD 00 01", "CardMan 1021"} {
		if err := f.Add(appBlock, "ignored_readers", reader); err != nil {
			t.Fatal(err)
		}
	}
	f = parse(t, string(f.Write()))
	if got := f.Effective(appBlock, "ignored_readers", "default"); !reflect.DeepEqual(got, []string{"CardMan 1021", "Virtual PCD 00 01"}) {
		t.Errorf("ignored_readers = %q", got)
	}
	for _, bad := range []string{`a "b"`, "a\nb", "a\rb", "a\x00b"} {
		if err := f.Add(appBlock, "ignored_readers", bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if err := f.Set(appBlock, "debug_file", bad, "default"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// What is written is read as the same, and written as the same again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		system, "app default { k = \"v\n ; }", "app default { k = a\"b, \"c", "a, b { } }", "k = a; k = b;",
		strings.Repeat("a b {", maxDepth) + "k = v; k = w;", "app default {\r\n# c\r\n\r\nk = v }\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := Parse(text)
		if err != nil {
			return
		}
		written := first.Write()
		second, err := Parse(written)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, written)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("it was read differently:\n%q\n%q", text, written)
		}
		if !bytes.Equal(second.Write(), written) {
			t.Fatalf("it was written differently:\n%q", written)
		}
		_ = first.Settings("opensc-pkcs11", "default")
	})
}
