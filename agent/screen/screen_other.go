//go:build windows || darwin

package screen

import "context"

// state is empty: nothing is watched.
type state struct{}

func newState() state { return state{} }

func (state) show() State {
	not := Sight{Detail: "not watched on this system: lock the card, or pull it, when you go"}
	return State{Screen: not, Sleep: not}
}

// Run returns when ctx ends: on this system nothing is watched.
func (w *Watcher) Run(ctx context.Context) { <-ctx.Done() }
