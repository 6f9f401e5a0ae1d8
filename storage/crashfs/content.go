package crashfs

import "slices"

// chunkBytes is how much of a file is copied for a write to what is shared.
const chunkBytes = 32 << 10

// content is the bytes of a file. A copy of it made by share costs nothing:
// both hold the same chunks, and who writes first copies the list and the one
// chunk. To know what is its own, a content signs what it makes; sharing, it
// lays down its signature and takes a new one for the next write.
type content struct {
	size   int64
	me     *signature // nil: everything is shared
	list   *signature // of chunks
	chunks []*chunk   // nil is zeros
}

// chunk is changed only by the content that has signed it.
type chunk struct {
	by   *signature
	data []byte // what is missing at the end is zeros
}

type signature struct{ _ byte } // not of size 0, or all would have one address

// share returns an independent copy.
func (c *content) share() content {
	c.me = nil
	return *c
}

// extend makes the file so long at least, with zeros.
func (c *content) extend(size int64) { c.size = max(c.size, size) }

func (c *content) writeAt(p []byte, offset int64) {
	c.extend(offset + int64(len(p)))
	for len(p) > 0 {
		at := int(offset % chunkBytes)
		n := min(len(p), chunkBytes-at)
		k := c.own(int(offset / chunkBytes))
		if grow := at + n - len(k.data); grow > 0 {
			k.data = append(k.data, make([]byte, grow)...)
		}
		copy(k.data[at:], p[:n])
		p, offset = p[n:], offset+int64(n)
	}
}

// own makes a chunk this content's own.
func (c *content) own(i int) *chunk {
	if c.me == nil {
		c.me = new(signature)
	}
	if c.list != c.me {
		c.chunks, c.list = slices.Clone(c.chunks), c.me
	}
	for len(c.chunks) <= i {
		c.chunks = append(c.chunks, nil)
	}
	switch k := c.chunks[i]; {
	case k == nil:
		c.chunks[i] = &chunk{by: c.me}
	case k.by != c.me:
		c.chunks[i] = &chunk{c.me, slices.Clone(k.data)}
	}
	return c.chunks[i]
}

// readAt fills p from offset on and returns how much there was.
func (c *content) readAt(p []byte, offset int64) int {
	if offset >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-offset)]
	for rest := p; len(rest) > 0; {
		at := int(offset % chunkBytes)
		n := min(len(rest), chunkBytes-at)
		c.readChunk(rest[:n], int(offset/chunkBytes), at)
		rest, offset = rest[n:], offset+int64(n)
	}
	return len(p)
}

func (c *content) readChunk(p []byte, i, at int) {
	copied := 0
	if i < len(c.chunks) && c.chunks[i] != nil && at < len(c.chunks[i].data) {
		copied = copy(p, c.chunks[i].data[at:])
	}
	clear(p[copied:])
}

func (c *content) bytes() []byte {
	p := make([]byte, c.size)
	c.readAt(p, 0)
	return p
}
