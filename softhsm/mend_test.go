package softhsm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"
)

// SoftHSM empties the token's file before it writes it anew; a process that is
// killed between must not cost the card.
func TestAWriteThatWasCutOffIsUndone(t *testing.T) {
	card, err := Create(t.TempDir(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(*pkcs11.Ctx, pkcs11.SessionHandle) error { return nil }
	if err := card.alter(nothing); err != nil { // its login keeps the token safe
		t.Fatal(err)
	}
	tokens, err := filepath.Glob(card.path(tokenDir) + "/*/token.object")
	if err != nil || len(tokens) != 1 {
		t.Fatalf("tokens %v, %v", tokens, err)
	}
	if err := os.Truncate(tokens[0], 0); err != nil {
		t.Fatal(err)
	}
	if err := card.withState(func(s *state) { s.writing.Store(1) }); err != nil {
		t.Fatal(err)
	}
	if err := card.alter(nothing); err != nil {
		t.Errorf("the card is lost: %v", err)
	}
	if err := card.withState(func(s *state) {
		if s.writing.Load() != 0 {
			t.Error("the write still counts as cut off")
		}
	}); err != nil {
		t.Fatal(err)
	}
}
