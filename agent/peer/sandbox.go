package peer

// SandboxKind says what keeps a program's files apart from ours.
type SandboxKind string

// The kinds of sandbox. Container is any other mount namespace, such as that of
// podman, bubblewrap or a systemd unit with files of its own.
const (
	Flatpak   SandboxKind = "flatpak"
	Snap      SandboxKind = "snap"
	Container SandboxKind = "container"
)

// Sandbox is the sandbox or container that a program runs in; zero is none. The
// path of a program in one says little: the same file may have been given other
// libraries and settings there. App is proved as far as anything here is: other
// sandboxed programs cannot take the name, programs with all rights of the user
// can.
type Sandbox struct {
	Kind SandboxKind
	// App is the application's name: of a flatpak its ID, of a snap its name; ""
	// where there is no such thing.
	App string
}
