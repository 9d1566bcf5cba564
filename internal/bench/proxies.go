package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/internal/lab/loopback"
	"sluice.example/sluice/internal/lab/proc"
)

// proxyPlan names the server behind the proxy, host:port.
type proxyPlan struct{ Backend string }

// buffers is the pool of buffers with which ReverseProxy copies. The buffers have the size that
// ReverseProxy uses by itself.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// serveProxy is the proxy with which everything is compared. It is the proxy of net/http with good
// settings: it keeps every connection, compresses nothing, reuses its copy buffers, flushes each
// write and adds no headers.
func serveProxy(ctx context.Context, plan []byte, tell func(any) error) error {
	var p proxyPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	target := &url.URL{Scheme: "http", Host: p.Backend}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConns:        0, // no limit
			MaxIdleConnsPerHost: 4096,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		FlushInterval: -1,
		BufferPool:    &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}},
		ErrorLog:      log.New(os.Stderr, "", 0),
	}
	return serveHTTP(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without full duplex net/http closes the request's body when the answer begins. The
		// transport may be waiting for the end of the body at that moment, and then closes the
		// connection: one stream in some hundreds broke off.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}), tell)
}

// nginxConf configures nginx as a proxy that keeps its connections. nginx does not buffer answers,
// because a stream must not be buffered.
const nginxConf = `worker_processes auto;
daemon off;
pid «DIR»/nginx.pid;
error_log «DIR»/nginx.err crit;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path «DIR»/body; proxy_temp_path «DIR»/proxy;
  fastcgi_temp_path «DIR»/fastcgi; uwsgi_temp_path «DIR»/uwsgi; scgi_temp_path «DIR»/scgi;
  keepalive_requests 100000000;
  tcp_nodelay on;
  upstream backend { server «BACKEND»; keepalive 1024; keepalive_requests 100000000; }
  server {
    listen «LISTEN» backlog=4096;
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
`

// nginx starts an nginx in front of the backend. It returns nil when no nginx is installed.
func (s *site) nginx(ctx context.Context, backend string) (*server, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, nil
	}
	addr, err := loopback.FreeAddress()
	if err != nil {
		return nil, err
	}
	conf := strings.NewReplacer("«DIR»", s.dir, "«BACKEND»", backend, "«LISTEN»", addr).Replace(nginxConf)
	if err := os.WriteFile(s.path("nginx.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	p, err := s.launcher.Start(proc.Spec{Name: "nginx", Path: path, Log: s.path("nginx.log"),
		Args: []string{"-e", s.path("nginx.err"), "-p", s.dir, "-c", s.path("nginx.conf")}})
	if err != nil {
		return nil, err
	}
	s.running = append(s.running, p)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = p.Await(ctx, "nginx listens", func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return &server{process: p, Addr: addr}, err
}
