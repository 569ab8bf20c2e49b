package fineid

import (
	"strings"
	"unicode"
)

// Profile is the user record made from an Identity. The fields are those that
// django-ssl-auth filled for FINeID, so that its users find the same names.
type Profile struct {
	// Username is the subject's serialNumber: the SATU of a citizen.
	Username string
	// FirstName and LastName are in title case.
	FirstName, LastName string
	// Email is always empty: the address in a certificate is not verified.
	Email string
}

// Profile makes the user record.
func (id Identity) Profile() Profile {
	return Profile{
		Username:  id.SerialNumber,
		FirstName: titleCase(id.GivenName),
		LastName:  titleCase(id.Surname),
	}
}

// titleCase turns the capitals of a certificate into a written name: every
// run of letters gets one capital. A run that mixes cases already was written
// so on purpose ("McDonald") and stays. Particles get a capital as well, for
// a certificate does not tell whether "VON" is one.
func titleCase(name string) string {
	var b strings.Builder
	rest := name
	for rest != "" {
		length := strings.IndexFunc(rest, notInWord)
		if length < 0 {
			length = len(rest)
		}
		b.WriteString(titleWord(rest[:length]))
		rest = rest[length:]
		separators := strings.IndexFunc(rest, func(r rune) bool { return !notInWord(r) })
		if separators < 0 {
			separators = len(rest)
		}
		b.WriteString(rest[:separators])
		rest = rest[separators:]
	}
	return b.String()
}

// notInWord ends a run of letters. Combining marks belong to their letter.
func notInWord(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }

func titleWord(word string) string {
	if word != strings.ToUpper(word) && word != strings.ToLower(word) {
		return word
	}
	first := true
	return strings.Map(func(r rune) rune {
		if first {
			first = false
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, word)
}
