package catalog

import (
	"context"
	"os"
	"time"
)

// Watch looks at the watched files every lookEvery. It reloads after a change once nothing has changed
// for settleFor, because an editor or a copy may write a file in pieces.
const (
	lookEvery = 100 * time.Millisecond
	settleFor = 300 * time.Millisecond
)

// Watch reloads when the file, or a file that it names, has changed. It does so only while the
// configuration in force has watch turned on. It returns when ctx ends.
//
// Watch looks at files by their names, through every symbolic link. Kubernetes changes a mounted
// ConfigMap through a link that it points at another folder, and a watch on the file itself would not
// see that.
func (l *Live) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seen, settled sight // seen is the last look; settled is the look at the last reload
	var since time.Time     // when seen was first seen
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
			_, _ = l.Reload("file") // the outcome is in the log and in Status
		}
	}
}

// sight is what the watched files look like.
type sight map[string]os.FileInfo

// look looks at the file and at the files that the configuration in force names.
func (l *Live) look() sight {
	s := sight{}
	for _, path := range append(l.Current().Config.Files(), l.cfg.Path) {
		s[path], _ = os.Stat(path) // nil means that the file does not exist now
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
