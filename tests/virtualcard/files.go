package virtualcard

import "bytes"

// file is a dedicated file (a folder) or an elementary file of the card.
type file struct {
	id       uint16
	name     []byte // DF name (AID), of dedicated files only
	folder   bool
	content  []byte
	children []*file
	parent   *file
	internal bool // holds a key: it can be selected and not read
}

const idMF uint16 = 0x3F00

// newMF returns an empty file system.
func newMF() *file { return &file{id: idMF, folder: true} }

// addDF adds a folder and returns it.
func (f *file) addDF(id uint16, name []byte) *file {
	child := &file{id: id, name: name, folder: true, parent: f}
	f.children = append(f.children, child)
	return child
}

// addEF adds an elementary file with its content and returns it.
func (f *file) addEF(id uint16, content []byte) *file {
	child := &file{id: id, content: content, parent: f}
	f.children = append(f.children, child)
	return child
}

// child returns the file with that identifier in this folder, or nil.
func (f *file) child(id uint16) *file {
	for _, c := range f.children {
		if c.id == id {
			return c
		}
	}
	return nil
}

// named returns the folder with that DF name in f or below it, or nil. A name
// may be cut short at its end, as ISO 7816-4 allows.
func (f *file) named(name []byte) *file {
	if len(name) > 0 && bytes.HasPrefix(f.name, name) {
		return f
	}
	for _, c := range f.children {
		if found := c.named(name); found != nil {
			return found
		}
	}
	return nil
}

// fileSystem is a tree of files and the place in it where the card is.
type fileSystem struct {
	mf *file
	df *file // current folder
	ef *file // current elementary file, nil: none
}

func newFileSystem(mf *file) *fileSystem { return &fileSystem{mf: mf, df: mf} }

// reset makes the MF the current folder, as after power-on.
func (s *fileSystem) reset() { s.df, s.ef = s.mf, nil }

// sel does SELECT (ISO 7816-4 11.2.2): by file identifier (P1 00, 01, 02),
// parent (03), DF name (04), path from the MF (08) and path from the current
// folder (09). It returns the file, which is then the current one; what is
// answered of it (FCI) is the profile's affair.
func (s *fileSystem) sel(cmd command) (*file, uint16) {
	found, sw := s.find(cmd.P1, cmd.Data)
	if sw != swOK {
		return nil, sw
	}
	if found.folder {
		s.df, s.ef = found, nil
	} else {
		s.df, s.ef = found.parent, found
	}
	return found, swOK
}

func (s *fileSystem) find(how byte, data []byte) (*file, uint16) {
	var found *file
	switch how {
	case 0x00, 0x01, 0x02:
		if len(data) == 0 && how == 0 {
			return s.mf, swOK
		}
		if len(data) != 2 {
			return nil, swWrongLength
		}
		found = s.byID(fileID(data))
	case 0x03:
		found = s.df.parent
	case 0x04:
		found = s.mf.named(data)
	case 0x08:
		return walk(s.mf, data)
	case 0x09:
		return walk(s.df, data)
	default:
		return nil, swWrongP1P2
	}
	if found == nil {
		return nil, swFileNotFound
	}
	return found, swOK
}

// byID looks in the current folder, then at the folder itself, its parent and
// its siblings.
func (s *fileSystem) byID(id uint16) *file {
	if id == idMF {
		return s.mf
	}
	if found := s.df.child(id); found != nil || s.df.id == id {
		if found == nil {
			found = s.df
		}
		return found
	}
	if up := s.df.parent; up != nil {
		if up.id == id {
			return up
		}
		if found := up.child(id); found != nil && found.folder {
			return found
		}
	}
	return nil
}

// walk follows a path of file identifiers; one that begins with the MF's may
// do so from the MF.
func walk(from *file, path []byte) (*file, uint16) {
	if len(path) == 0 || len(path)%2 != 0 {
		return nil, swWrongLength
	}
	if from.parent == nil && fileID(path) == idMF {
		path = path[2:]
	}
	for ; len(path) > 0; path = path[2:] {
		if from = from.child(fileID(path)); from == nil {
			return nil, swFileNotFound
		}
	}
	return from, swOK
}

func fileID(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

// readBinary does READ BINARY of the current file with an offset of 15 bits
// in P1 and P2. Short file identifiers are not known.
func (s *fileSystem) readBinary(cmd command) ([]byte, uint16) {
	switch {
	case cmd.P1&0x80 != 0:
		return nil, swWrongP1P2
	case s.ef == nil || s.ef.internal:
		return nil, swNoCurrentFile
	case cmd.Le == noLe:
		return nil, swWrongLength
	}
	offset := int(cmd.p1p2())
	if offset > len(s.ef.content) || offset == len(s.ef.content) && offset > 0 {
		return nil, swOffset
	}
	rest := s.ef.content[offset:]
	return rest[:min(len(rest), cmd.Le)], swOK
}

// fci is the file control information of ISO 7816-4 table 10 that both
// drivers of these cards read: size (80 or 81), descriptor (82), identifier
// (83), DF name (84); more is appended by the profile.
func (f *file) fci(more ...byte) []byte {
	size := []byte{byte(len(f.content) >> 8), byte(len(f.content))}
	id := []byte{byte(f.id >> 8), byte(f.id)}
	sizeTag, descriptor := uint16(0x80), byte(0x01)
	switch {
	case f.folder:
		sizeTag, descriptor = 0x81, 0x38
	case f.internal:
		sizeTag, descriptor = 0x81, 0x11
	}
	body := join(tlv(sizeTag, size), tlv(0x82, []byte{descriptor}), tlv(0x83, id))
	if len(f.name) > 0 {
		body = append(body, tlv(0x84, f.name)...)
	}
	return tlv(0x6F, append(body, more...))
}

// tlv encodes a BER-TLV data object with a tag of one byte, or of two where
// the tag is above 0xFF.
func tlv(tag uint16, value ...[]byte) []byte {
	body := bytes.Join(value, nil)
	var out []byte
	if tag > 0xFF {
		out = append(out, byte(tag>>8))
	}
	out = append(out, byte(tag))
	switch n := len(body); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	return append(out, body...)
}

// readTLV takes the first data object off b: a tag of one byte, or of two if
// its low five bits are all set. ok is false where b holds no whole one.
func readTLV(b []byte) (tag uint16, value, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, b = uint16(b[0]), b[1:]
	if tag&0x1F == 0x1F {
		tag, b = tag<<8|uint16(b[0]), b[1:]
	}
	if len(b) == 0 {
		return 0, nil, nil, false
	}
	n, b := int(b[0]), b[1:]
	switch {
	case n == 0x81 && len(b) >= 1:
		n, b = int(b[0]), b[1:]
	case n == 0x82 && len(b) >= 2:
		n, b = int(b[0])<<8|int(b[1]), b[2:]
	case n >= 0x80:
		return 0, nil, nil, false
	}
	if n > len(b) {
		return 0, nil, nil, false
	}
	return tag, b[:n], b[n:], true
}
