package peer

import (
	"testing"
	"time"
)

// What the far end has left unread tells of its end as an end alone does.
func TestEnded(t *testing.T) {
	for name, end := range map[string]func(t *testing.T){
		"closed": func(t *testing.T) {
			near, far := pair(t, "127.0.0.1:0", "127.0.0.1")
			if Ended(near) {
				t.Error("before")
			}
			far.Write([]byte("unread"))
			far.Close()
			waitEnded(t, func() bool { return Ended(near) })
		},
		"reset": func(t *testing.T) {
			near, far := pair(t, "127.0.0.1:0", "127.0.0.1")
			far.SetLinger(0)
			far.Close()
			waitEnded(t, func() bool { return Ended(near) })
		},
		"ours": func(t *testing.T) {
			near, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
			near.Close()
			waitEnded(t, func() bool { return Ended(near) })
		},
	} {
		t.Run(name, end)
	}
}

func waitEnded(t *testing.T, ended func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ended(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the end is not seen")
		}
	}
}
