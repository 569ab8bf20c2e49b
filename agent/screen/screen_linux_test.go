package screen

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/kortti-id/kortti/tests/desktop"
)

// watching is a watcher at work; it pauses between tries when the test says so.
type watching struct {
	*Watcher
	t     *testing.T
	locks chan string // reasons
	onto  func(reason string)
}

// watch runs a watcher until the test ends. onLock is called within Lock.
func watch(t *testing.T, system, session string, onLock func(reason string)) *watching {
	t.Helper()
	w := &watching{t: t, locks: make(chan string, 100), onto: onLock}
	w.Watcher = New(Config{Buses: Buses{system, session}, Lock: func(reason string) {
		if w.onto != nil {
			w.onto(reason)
		}
		w.locks <- reason
	}})
	w.pause = func(ctx context.Context, _ time.Duration) { pause(ctx, time.Millisecond) }
	w.run()
	return w
}

func (w *watching) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// locked wants the next lock to have this reason.
func (w *watching) locked(reason string) {
	w.t.Helper()
	select {
	case got := <-w.locks:
		if !strings.Contains(got, reason) {
			w.t.Errorf("locked because %q, want %q", got, reason)
		}
	case <-time.After(30 * time.Second):
		w.t.Fatalf("not locked when %s", reason)
	}
}

// until waits for a state.
func (w *watching) until(what string, ok func(State) bool) {
	w.t.Helper()
	desktop.WaitFor(w.t, what, func() bool { return ok(w.State()) })
}

func (w *watching) untilScreen(detail string) {
	w.t.Helper()
	w.until("screen watched through "+detail, func(s State) bool { return s.Screen.Watched && s.Screen.Detail == detail })
}

// quiet wants that nothing has locked; all signals up to a lock that the test
// makes last have been heard when it comes.
func (w *watching) quiet() {
	w.t.Helper()
	if n := len(w.locks); n != 0 {
		w.t.Errorf("locked %d times for nothing, first because %q", n, <-w.locks)
	}
}

var me = uint32(os.Getuid())

// TestSleepWaitsForTheLock is the order that counts: the delay lock is held
// before, while and until the cards are locked, and anew after the sleep.
func TestSleepWaitsForTheLock(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	logind.AddSession("c1", me, false, true)
	w := watch(t, bus.Address, desktop.Nowhere, func(string) {
		if n := logind.Delays(); n != 1 {
			t.Errorf("while the cards are being locked sleep waits for %d programs", n)
		}
	})
	w.untilScreen("logind's session c1")
	for range 3 {
		desktop.WaitFor(t, "the delay lock", func() bool { return logind.Delays() == 1 })
		logind.PrepareForSleep(true)
		w.locked(Sleep)
		desktop.WaitFor(t, "the end of the delay lock", func() bool { return logind.Delays() == 0 })
		w.quiet()
		logind.PrepareForSleep(false)
	}
	desktop.WaitFor(t, "the delay lock", func() bool { return logind.Delays() == 1 })
	if s := w.State(); s.Sleep != (Sight{true, "logind"}) {
		t.Errorf("%+v", s)
	}
}

// TestSleepThatHasBegun comes to a bus when PrepareForSleep has been sent.
func TestSleepThatHasBegun(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind()
	logind.PrepareForSleep(true)
	logind.Come()
	w := watch(t, bus.Address, desktop.Nowhere, nil)
	w.locked(Sleep)
	desktop.WaitFor(t, "no delay", func() bool { return logind.Delays() == 0 })
}

func TestDelayRefused(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Refuse().Come()
	w := watch(t, bus.Address, desktop.Nowhere, nil)
	w.until("the refusal", func(s State) bool {
		return s.Sleep.Watched && s.Sleep.Detail == "logind, but sleep does not wait for the lock (not allowed)"
	})
	logind.PrepareForSleep(true)
	w.locked(Sleep)
}

func TestSession(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	logind.AddSession("c1", me, false, true) // the graphical one; ours is none, as under systemd --user
	w := watch(t, bus.Address, desktop.Nowhere, nil)
	w.untilScreen("logind's session c1")
	for _, quietly := range []bool{false, true} {
		logind.Set("c1", true, true, quietly)
		w.locked(Locked)
		logind.Set("c1", false, true, false)
		logind.Set("c1", false, false, quietly)
		w.locked(Switched)
		logind.Set("c1", false, true, false)
	}
	logind.Lock("c1")
	w.locked(Locked)
	w.quiet()

	logind.AddSession("other", me+1, false, false)
	logind.Set("other", true, false, false)
	logind.Lock("other")
	logind.RemoveSession("other")
	logind.AddSession("ssh", me, true, false) // the agent's own from now on
	w.untilScreen("logind's session c1, ssh")
	w.quiet()
	logind.RemoveSession("ssh")
	w.locked(Ended)
	logind.RemoveSession("c1")
	w.locked(Ended)
	w.until("no session", func(s State) bool {
		return !s.Screen.Watched && strings.HasPrefix(s.Screen.Detail, "logind knows no session of this user; no session bus (")
	})
	logind.AddSession("c2", me, false, true)
	w.untilScreen("logind's session c2")
	logind.Lock("c2")
	w.locked(Locked)
	w.quiet()
}

// TestSessionOfTheEnvironment is XDG_SESSION_ID's, unless it is somebody else's.
func TestSessionOfTheEnvironment(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	logind.AddSession("7", me, false, false)
	logind.AddSession("8", me+1, false, false)
	t.Setenv("XDG_SESSION_ID", "7")
	watch(t, bus.Address, desktop.Nowhere, nil).untilScreen("logind's session 7")
	t.Setenv("XDG_SESSION_ID", "8")
	watch(t, bus.Address, desktop.Nowhere, nil).until("nothing to watch", func(s State) bool {
		return s.Sleep.Watched && !s.Screen.Watched && strings.HasPrefix(s.Screen.Detail, "logind knows no session")
	})
}

// TestLockedFromTheStart finds what it has not heard.
func TestLockedFromTheStart(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	logind.AddSession("c1", me, false, true)
	logind.Set("c1", true, true, false)
	bus.NewSaver("org.freedesktop.ScreenSaver", "/ScreenSaver", true)
	watch(t, bus.Address, desktop.Nowhere, nil).locked(Locked)
	watch(t, desktop.Nowhere, bus.Address, nil).locked(Locked)
}

func TestSavers(t *testing.T) {
	for name, path := range map[string]dbus.ObjectPath{
		"org.freedesktop.ScreenSaver": "/org/freedesktop/ScreenSaver",
		"org.gnome.ScreenSaver":       "/org/gnome/ScreenSaver",
		"org.cinnamon.ScreenSaver":    "/org/cinnamon/ScreenSaver",
		"org.mate.ScreenSaver":        "/org/mate/ScreenSaver",
		"org.xfce.ScreenSaver":        "/org/xfce/ScreenSaver",
	} {
		t.Run(name, func(t *testing.T) {
			bus := desktop.NewBus(t)
			w := watch(t, desktop.Nowhere, bus.Address, nil)
			w.until("no screen saver", func(s State) bool { return strings.HasSuffix(s.Screen.Detail, "no screen saver on the session bus") })
			saver := bus.NewSaver(name, path, false)
			w.untilScreen(name)
			saver.SetActive(true)
			w.locked(Locked)
			saver.SetActive(false)
			saver.SetActive(true)
			w.locked(Locked)
			w.quiet()
			saver.End()
			w.until("the end of the screen saver", func(s State) bool { return !s.Screen.Watched })
			bus.NewSaver(name, path, true) // it was locked while nobody said so
			w.locked(Locked)
		})
	}
}

// TestForeignSender has another program on the bus say what only the owner of a
// name may say, to all and straight to us.
func TestForeignSender(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	logind.AddSession("c1", me, false, true)
	saver := bus.NewSaver("org.gnome.ScreenSaver", "/org/gnome/ScreenSaver", false)
	w := watch(t, bus.Address, bus.Address, nil)
	w.untilScreen("logind's session c1, org.gnome.ScreenSaver")
	foreign := bus.Connect()
	var everybody []string
	check(t, foreign.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&everybody))
	for _, to := range everybody {
		if !strings.HasPrefix(to, ":") {
			continue
		}
		say(t, foreign, to, "/org/gnome/ScreenSaver", "org.gnome.ScreenSaver.ActiveChanged", true)
		say(t, foreign, to, "/org/freedesktop/login1", login1Manager+".PrepareForSleep", true)
		say(t, foreign, to, "/org/freedesktop/login1/session/c1", login1Session+".Lock")
		say(t, foreign, to, "/org/freedesktop/DBus", busName+".NameOwnerChanged", "org.gnome.ScreenSaver", "", foreign.Names()[0])
	}
	say(t, foreign, "", "/org/gnome/ScreenSaver", "org.gnome.ScreenSaver.ActiveChanged", true)
	say(t, foreign, "", "/org/freedesktop/login1", login1Manager+".PrepareForSleep", true)
	// The bus keeps the order: what foreign said has come before these.
	check(t, foreign.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err)
	logind.Lock("c1")
	w.locked(Locked)
	saver.SetActive(true)
	w.locked(Locked)
	w.quiet()
	if n := logind.Delays(); n != 1 {
		t.Errorf("sleep waits for %d programs", n)
	}
}

// say sends a signal, to everybody where to is empty.
func say(t *testing.T, conn *dbus.Conn, to string, path dbus.ObjectPath, name string, body ...any) {
	t.Helper()
	i := strings.LastIndexByte(name, '.')
	msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(name[:i]), dbus.FieldMember: dbus.MakeVariant(name[i+1:]),
	}}
	if to != "" {
		msg.Headers[dbus.FieldDestination] = dbus.MakeVariant(to)
	}
	if len(body) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	check(t, conn.Send(msg, nil).Err)
}

func TestLogindRestarts(t *testing.T) {
	bus := desktop.NewBus(t)
	first := bus.NewLogind().Come()
	first.AddSession("c1", me, false, true)
	w := watch(t, bus.Address, desktop.Nowhere, nil)
	w.untilScreen("logind's session c1")
	first.End()
	w.until("logind's end", func(s State) bool {
		return s.Sleep == Sight{Detail: "no logind on the system bus"} && !s.Screen.Watched
	})
	w.quiet() // an update of systemd locks no card

	second := bus.NewLogind()
	second.AddSession("c1", me, false, true)
	second.Set("c1", true, true, false) // meanwhile
	second.Come()
	w.locked(Locked)
	desktop.WaitFor(t, "the delay lock", func() bool { return second.Delays() == 1 })
	second.PrepareForSleep(true)
	w.locked(Sleep)
}

func TestBusesComeAndGo(t *testing.T) {
	system, session := desktop.NewBus(t), desktop.NewBus(t)
	system.Stop()
	session.Stop()
	w := watch(t, system.Address, session.Address, nil)
	w.until("the refusals", func(s State) bool {
		return strings.HasPrefix(s.Sleep.Detail, "no system bus (dial unix") && strings.Contains(s.Screen.Detail, "; no session bus (dial unix")
	})
	for range 2 {
		system.Start()
		session.Start()
		logind := system.NewLogind().Come()
		logind.AddSession("c1", me, false, true)
		saver := session.NewSaver("org.xfce.ScreenSaver", "/org/xfce/ScreenSaver", false)
		w.untilScreen("logind's session c1, org.xfce.ScreenSaver")
		desktop.WaitFor(t, "the delay lock", func() bool { return logind.Delays() == 1 })
		saver.SetActive(true)
		w.locked(Locked)
		logind.PrepareForSleep(true)
		w.locked(Sleep)
		session.Stop()
		w.locked("the session bus was lost")
		system.Stop()
		w.locked("the system bus was lost")
		w.until("blindness", func(s State) bool { return !s.Screen.Watched && !s.Sleep.Watched })
	}
	w.quiet()
}

// TestNoBusyLoop counts tries at a bus that takes every connection and drops it.
func TestNoBusyLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path)
	check(t, err)
	tries := make(chan struct{}, 1000)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			tries <- struct{}{}
			conn.Close()
		}
	})
	defer accepting.Wait()
	defer listener.Close()

	w := New(Config{Buses: Buses{"unix:path=" + path, "tcp:host=127.0.0.1,port=1"}, Lock: func(reason string) { t.Error("locked: " + reason) }})
	ctx, cancel := context.WithCancel(t.Context())
	var pauses []time.Duration
	w.pause = func(_ context.Context, d time.Duration) {
		if pauses = append(pauses, d); len(pauses) == 8 {
			cancel()
		}
	}
	g := &logind{Watcher: w, address: w.config.Buses.System}
	w.keep(ctx, "system bus", w.config.Buses.System, g, func(s *state, err error) { s.noSystem = err })
	want := []time.Duration{1, 2, 4, 8, 16, 30, 30, 30}
	for i, d := range pauses {
		if d != want[i]*time.Second {
			t.Errorf("pause %d is %v", i, d)
		}
	}
	if n := len(tries); n != len(want) {
		t.Errorf("%d tries with %d pauses", n, len(want))
	}
}

func TestAddresses(t *testing.T) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "autolaunch:")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1 0")
	if got := sessionAddress(); got != "unix:path=/run/user/1%200/bus" || socketPath(got) != "/run/user/1 0/bus" {
		t.Error(got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := sessionAddress(); got != "" {
		t.Error(got)
	}
	w := watch(t, desktop.Nowhere, "", nil)
	w.until("no address", func(s State) bool { return strings.Contains(s.Screen.Detail, errNoSession.Error()) })
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=a,guid=1")
	if got := socketPath(sessionAddress()); got != "@a" {
		t.Error(got)
	}
	for _, none := range []string{"", "unix:", "unix:runtime=yes", "tcp:host=a,port=1", "unix:path=%zz"} {
		if got := socketPath(none); got != "" {
			t.Errorf("%q: %q", none, got)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoFileIsLeft gives calls up while their answers are on the way: the files
// that come with these must be closed too, or the machine would wait for nobody.
func TestNoFileIsLeft(t *testing.T) {
	bus := desktop.NewBus(t)
	logind := bus.NewLogind().Come()
	owner := logind.Name()
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		before := logind.Asked()
		var asking sync.WaitGroup
		asking.Go(func() {
			file, err := askForFile(ctx, bus.Address, owner, login1Path, login1Manager+".Inhibit", "sleep", "Kortti", "", "delay")
			if err == nil {
				file.Close()
			}
		})
		desktop.WaitFor(t, "the call", func() bool { return logind.Asked() > before })
		cancel()
		asking.Wait()
	}
	desktop.WaitFor(t, "the end of all delay locks", func() bool { return logind.Delays() == 0 })
}
