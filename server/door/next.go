package door

import (
	"net/url"
	"strings"
)

// maxNext is the longest address, in bytes, to which a login leads back.
const maxNext = 2048

// LocalURL returns the path and query of next if it stays on this host, else "".
// Browsers take "//host", "/\host" and a tab between the slashes for another
// host; whatever is not a plain absolute path is refused.
func LocalURL(next string) string {
	if len(next) > maxNext || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) {
		return ""
	}
	u, err := url.Parse(next) // refuses control characters
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return ""
	}
	u.Fragment, u.RawFragment = "", ""
	local := u.String()
	if !strings.HasPrefix(local, "/") || strings.HasPrefix(local, "//") {
		return ""
	}
	return local
}

// nextOf is where a login leads: to next, or to the redirect URL if next is
// nowhere on this host or is a door through which the person would fall back.
func (d *Door) nextOf(next string) string {
	local := LocalURL(next)
	if path, _, _ := strings.Cut(local, "?"); local == "" || path == d.LoginURL || path == LogoutPath || path == d.InactiveURL {
		return d.RedirectURL
	}
	return local
}
