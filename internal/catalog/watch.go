package catalog

import (
	"context"
	"os"
	"time"
)

// The watched files are looked at every lookEvery. A change is taken in once nothing
// has changed for settleFor: an editor, or a copy, may write in pieces.
const (
	lookEvery = 100 * time.Millisecond
	settleFor = 300 * time.Millisecond
)

// Watch reloads when the file, or one that it names, has changed, as long as the
// configuration in force says that it is watched. It returns when ctx ends.
//
// Files are looked at by their names, through every symbolic link: Kubernetes changes
// a mounted ConfigMap by a link that points to another folder, which no watch on the
// file itself would see.
func (l *Live) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seen, settled sight // as last looked at; as last taken in
	var since time.Time     // when seen was seen first
	watching := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		was := watching
		if watching = l.Current().Config.Watch; !watching {
			continue
		}
		now := l.look()
		switch {
		case !was:
			seen, settled = now, now
		case !now.equals(seen):
			seen, since = now, time.Now()
		case !now.equals(settled) && time.Since(since) >= settleFor:
			settled = now
			_, _ = l.Reload("file") // said in the log and in Status
		}
	}
}

// sight is what the watched files look like.
type sight map[string]os.FileInfo

// look looks at the file and at those that the configuration in force names.
func (l *Live) look() sight {
	s := sight{}
	for _, path := range append(l.Current().Config.Files(), l.cfg.Path) {
		s[path], _ = os.Stat(path) // nil: it is not there now
	}
	return s
}

func (s sight) equals(o sight) bool {
	if len(s) != len(o) {
		return false
	}
	for path, a := range s {
		b, there := o[path]
		switch {
		case !there || (a == nil) != (b == nil):
			return false
		case a != nil && (a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) || !os.SameFile(a, b)):
			return false
		}
	}
	return true
}
