package chaos

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	_ "modernc.org/sqlite" // the driver, to count rows

	"sluice.example/sluice/internal/lightning"
)

// gauges read what a gateway takes up: of its machine, in its ledger and at its
// node.
type gauges struct {
	g      *Gateway
	ledger *sql.DB
	tables []string
	node   lnrpc.LightningClient
}

// reading is one look at all of them.
type reading struct {
	memory      int64 // resident, in bytes
	descriptors int64
	invoices    int64            // that the node ever made
	rows        map[string]int64 // by table
	waiting     int64            // in all queues
	metrics     map[string]float64
}

// watch opens the gauges of a gateway that keeps its ledger in SQLite.
func watch(t *testing.T, till *Till, g *Gateway) *gauges {
	t.Helper()
	ledger, err := sql.Open("sqlite", "file:"+g.Path("ledger.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	w := &gauges{g: g, ledger: ledger}
	var names string
	if err := ledger.QueryRow("SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table'").Scan(&names); err != nil {
		t.Fatal(err)
	}
	w.tables = strings.Split(names, ",")
	cfg, err := till.Network.Gateway.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := lightning.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w.node = lnrpc.NewLightningClient(conn)
	return w
}

// read looks at everything once.
func (w *gauges) read() (r reading, err error) {
	if r.memory, r.descriptors, err = process(w.g.Pid()); err != nil {
		return r, err
	}
	r.rows = map[string]int64{}
	for _, table := range w.tables {
		var n int64
		if err := w.ledger.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			return r, fmt.Errorf("count the rows of %s: %w", table, err)
		}
		r.rows[table] = n
	}
	list, err := w.node.ListInvoices(background(), &lnrpc.ListInvoiceRequest{Reversed: true, NumMaxInvoices: 1})
	if err != nil {
		return r, err
	}
	for _, newest := range list.Invoices {
		r.invoices = int64(newest.AddIndex)
	}
	if r.metrics, err = w.g.Metrics(); err != nil {
		return r, err
	}
	for name, n := range r.metrics {
		if strings.HasPrefix(name, "sluice_queue_waiting{") {
			r.waiting += int64(n)
		}
	}
	return r, nil
}

// process is a process's resident memory in bytes and its open descriptors.
func process(pid int) (memory, descriptors int64, err error) {
	folder := fmt.Sprintf("/proc/%d/", pid)
	status, err := os.ReadFile(folder + "status")
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscan(rest, &memory); err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	open, err := os.ReadDir(filepath.Join(folder, "fd"))
	return memory << 10, int64(len(open)), err
}

// each reads the gauges once a second, and a last time when the function it
// returns is called.
func (w *gauges) each(t *testing.T, look func(reading)) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for last := false; !last; {
			select {
			case <-end:
				last = true
			case <-time.After(time.Second):
			}
			r, err := w.read()
			if err != nil {
				t.Error(err)
				continue
			}
			look(r)
		}
	}()
	return sync.OnceFunc(func() {
		close(end)
		<-ended
	})
}
