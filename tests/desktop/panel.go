//go:build linux

package desktop

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

const (
	watcherName = "org.kde.StatusNotifierWatcher"
	watcherPath = dbus.ObjectPath("/StatusNotifierWatcher")
	itemPath    = dbus.ObjectPath("/StatusNotifierItem")
	itemName    = "org.kde.StatusNotifierItem"
	menuName    = "com.canonical.dbusmenu"
)

// Panel is as much of a desktop's panel as an icon in its tray sees: it takes the
// icon, reads its menu and clicks (freedesktop.org, Status Notifier Item; Canonical's
// dbusmenu).
type Panel struct {
	t    testing.TB
	conn *dbus.Conn

	mu   sync.Mutex
	item dbus.Sender // the bus name of the program with the icon, "" for none
}

// NewPanel makes a panel on the bus, until the test ends or Close.
func (b *Bus) NewPanel() *Panel {
	b.t.Helper()
	p := &Panel{t: b.t, conn: b.Connect()}
	if err := p.conn.Export(watcher{p}, watcherPath, watcherName); err != nil {
		b.t.Fatal(err)
	}
	take(b.t, p.conn, watcherName)
	return p
}

// Close ends the panel.
func (p *Panel) Close() { p.conn.Close() }

// watcher is what programs call.
type watcher struct{ p *Panel }

// RegisterStatusNotifierItem takes an icon.
func (w watcher) RegisterStatusNotifierItem(_ string, sender dbus.Sender) *dbus.Error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.item = sender
	return nil
}

// HasIcon tells whether a program has put its icon here.
func (p *Panel) HasIcon() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.item != ""
}

func (p *Panel) object(path dbus.ObjectPath) dbus.BusObject {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn.Object(string(p.item), path)
}

// Icon is a fingerprint of the picture, "" while there is none.
func (p *Panel) Icon() string {
	v, err := p.object(itemPath).GetProperty(itemName + ".IconPixmap")
	if err != nil {
		return ""
	}
	var pictures []struct {
		Width, Height int32
		Pixels        []byte
	}
	if err := v.Store(&pictures); err != nil || len(pictures) != 1 || len(pictures[0].Pixels) == 0 {
		p.t.Fatalf("no picture: %v", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(pictures[0].Pixels))
}

// MenuItem is one line of an icon's menu.
type MenuItem struct {
	Label   string
	Enabled bool
	id      int32
}

// Menu reads the icon's menu, without its separators.
func (p *Panel) Menu() []MenuItem {
	v, err := p.object(itemPath).GetProperty(itemName + ".Menu")
	if err != nil {
		return nil
	}
	var revision uint32
	var layout struct {
		ID         int32
		Properties map[string]dbus.Variant
		Children   []dbus.Variant
	}
	path, _ := v.Value().(dbus.ObjectPath)
	if err := p.object(path).Call(menuName+".GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &layout); err != nil {
		return nil
	}
	var menu []MenuItem
	for _, child := range layout.Children {
		var item struct {
			ID         int32
			Properties map[string]dbus.Variant
			Children   []dbus.Variant
		}
		if err := child.Store(&item); err != nil {
			p.t.Fatalf("a line of the menu: %v", err)
		}
		label, _ := item.Properties["label"].Value().(string)
		if label == "" {
			continue
		}
		enabled, said := item.Properties["enabled"].Value().(bool)
		menu = append(menu, MenuItem{label, enabled || !said, item.ID})
	}
	return menu
}

// Shows tells whether the menu has a line.
func (p *Panel) Shows(label string) bool {
	for _, item := range p.Menu() {
		if item.Label == label {
			return true
		}
	}
	return false
}

// Click clicks on a line of the menu.
func (p *Panel) Click(label string) {
	p.t.Helper()
	for _, item := range p.Menu() {
		if item.Label == label && item.Enabled {
			v, err := p.object(itemPath).GetProperty(itemName + ".Menu")
			if err != nil {
				p.t.Fatal(err)
			}
			path, _ := v.Value().(dbus.ObjectPath)
			if err := p.object(path).Call(menuName+".Event", 0, item.id, "clicked", dbus.MakeVariant(""), uint32(0)).Err; err != nil {
				p.t.Fatal(err)
			}
			return
		}
	}
	p.t.Fatalf("no %q to click among %+v", label, p.Menu())
}
