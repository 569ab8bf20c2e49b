package peer

import (
	"net/netip"
	"strings"
	"testing"
)

// tables are as proc_net_tcp(5) has them, on a little-endian machine.
const (
	table4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F8F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:D2C0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:1F8F 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0000000000000000 100 0 0 10 0
`
	table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F8F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4714 1 0000000000000000 100 0 0 10 0
`
)

func TestFindListener(t *testing.T) {
	for _, test := range []struct {
		table, at  string
		uid, inode uint32
		found      bool
	}{
		{table4, "127.0.0.1:8079", 1000, 4711, true},
		{table4, "127.0.0.2:8079", 0, 0, false},
		{table4, "127.0.0.1:53952", 0, 4712, true}, // on all addresses
		{table4, "127.0.0.1:8080", 0, 0, false},    // connected, not listening
		{table6, "[::1]:8079", 1000, 4714, true},
		{"", "127.0.0.1:8079", 0, 0, false},
	} {
		uid, inode, found := findListener(strings.NewReader(test.table), netip.MustParseAddrPort(test.at))
		if uid != test.uid || inode != test.inode || found != test.found {
			t.Errorf("findListener(%s) = %d, %d, %v", test.at, uid, inode, found)
		}
	}
}

func FuzzFindListener(f *testing.F) {
	f.Add(table4)
	f.Add(table6)
	f.Add("a b: 0A\n0: 0:0 0 0A 0 0 0 x 0 y\n")
	at := netip.MustParseAddrPort("127.0.0.1:8079")
	f.Fuzz(func(t *testing.T, table string) {
		if _, inode, found := findListener(strings.NewReader(table), at); !found && inode != 0 {
			t.Errorf("inode %d of nothing", inode)
		}
	})
}
