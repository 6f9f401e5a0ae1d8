package audit

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// A Report is what Verify has found in files whose chain holds.
type Report struct {
	Files   int    `json:"files"`
	First   uint64 `json:"first"` // the numbers of the first line and the last one
	Last    uint64 `json:"last"`
	Hash    string `json:"hash"` // of the last line
	From    string `json:"from"` // when the first was written, and the last
	To      string `json:"to"`
	Denied  uint64 `json:"denied"`  // lines of what was denied
	LeftOut uint64 `json:"leftOut"` // denials that are not told one by one
	Lost    uint64 `json:"lost"`    // lines that had no place
}

// A Mark is a line that somebody has kept the hash of.
type Mark struct {
	Seq  uint64
	Hash string
}

// A DamageError says where a chain is broken.
type DamageError struct {
	File   string
	Line   uint64 // in the file, from 1 on; 0 = the file as a whole
	Reason string
}

func (e *DamageError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
}

// Verify follows the chain through files, which may be given in any order. A mark, unless
// it is zero, must be in it: so somebody who has one learns of an end that was cut off.
func Verify(files []string, mark Mark) (Report, error) {
	ordered, err := inOrder(files)
	if err != nil {
		return Report{}, err
	}
	v := verification{mark: mark, report: Report{Files: len(files)}}
	for _, f := range ordered {
		if err := v.file(f.path); err != nil {
			return Report{}, err
		}
	}
	v.report.Last, v.report.Hash = v.at.seq, v.at.hash
	if mark.Seq > v.at.seq {
		return Report{}, &DamageError{File: ordered[len(ordered)-1].path, Reason: fmt.Sprintf("it ends with line %d, and line %d was there: its end is cut off", v.at.seq, mark.Seq)}
	}
	if mark.Seq != 0 && mark.Seq < v.report.First {
		return Report{}, &DamageError{File: ordered[0].path, Reason: fmt.Sprintf("it begins with line %d: that of the mark, %d, is in an older file", v.report.First, mark.Seq)}
	}
	return v.report, nil
}

type ordered struct {
	path  string
	first uint64
}

// inOrder sorts files by the number that their first line says it has.
func inOrder(files []string) ([]ordered, error) {
	out := make([]ordered, len(files))
	for i, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		first, err := firstOf(f)
		if closed := f.Close(); closed != nil {
			return nil, closed
		}
		if err != nil {
			return nil, &DamageError{path, 1, err.Error()}
		}
		out[i] = ordered{path, first}
	}
	slices.SortStableFunc(out, func(a, b ordered) int { return cmp.Compare(a.first, b.first) })
	return out, nil
}

// verification is how far Verify has come.
type verification struct {
	at     link // zero before the first line
	mark   Mark
	report Report
}

func (v *verification) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, lineBytesMax+1)
	for n := uint64(1); ; n++ {
		text, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(text) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return &DamageError{path, n, "it is not whole: the file was cut off in it, or it is just being written"}
		case errors.Is(err, bufio.ErrBufferFull):
			return &DamageError{path, n, fmt.Sprintf("it has more than %d bytes, which no line has", lineBytesMax)}
		case err != nil:
			return err
		}
		if reason := v.line(text[:len(text)-1]); reason != "" {
			return &DamageError{path, n, reason}
		}
	}
}

// line takes the next line; the reason is "" when it is the one that follows.
func (v *verification) line(text []byte) (reason string) {
	l, at, err := read(text)
	if err != nil {
		return err.Error()
	}
	if v.at.seq == 0 {
		v.report.First, v.report.From = l.Seq, l.Time
		if l.Seq == 1 && l.Prev != origin.hash {
			return "it is the first line of all, and names one before it"
		}
	} else if l.Seq != v.at.seq+1 {
		return fmt.Sprintf("it is line %d of the log, and line %d should be here: lines were taken out, put in or moved, or a file is missing", l.Seq, v.at.seq+1)
	} else if l.Prev != v.at.hash {
		return "the line before it is not the one that it was written after"
	}
	if l.Seq == v.mark.Seq && at.hash != v.mark.Hash {
		return fmt.Sprintf("its hash is not that of the mark for line %d: the log was written anew", l.Seq)
	}
	v.at, v.report.To = at, l.Time
	v.count(&l)
	return ""
}

func (v *verification) count(l *line) {
	switch {
	case l.Decision == denied:
		v.report.Denied++
	case l.Does == DoesLeftOut:
		v.report.LeftOut += l.Count
	case l.Does == DoesLost:
		v.report.Lost += l.Count
	}
}
