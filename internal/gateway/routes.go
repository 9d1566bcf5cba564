package gateway

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"sluice.example/sluice/internal/gateway/problem"
)

const (
	pathAlive  = "/healthz" // says that the process serves
	pathReady  = "/readyz"
	pathModels = "/v1/models"
)

// Handler is what the public listener serves. This file is the only one that
// knows gin, and uses it as a URL map: everything behind is plain net/http.
func (g *Gateway) Handler() http.Handler {
	m := newMux()
	read := func(path, route string, handle func(*exchange) error) {
		m.GET(path, g.public(route, handle))
		m.HEAD(path, g.public(route, handle))
	}
	m.NoRoute(g.public("unknown", func(*exchange) error { return unknownRoute() }))
	m.NoMethod(g.public("unknown", wrongMethod))
	m.HEAD("/", g.public("root", (*exchange).root))
	for _, f := range g.cfg.APIs {
		for _, path := range f.Paths() {
			m.POST(path, g.public(f.Name(), func(x *exchange) error { return g.paid(x, f) }))
			read(path, f.Name(), g.showPrice)
		}
	}
	read(pathModels, "models", g.listModels)
	read(pathModels+"/*id", "models", g.showModel)
	read("/l402/quote", "quote", g.showQuote)
	read("/l402/balance", "balance", g.showBalance)
	read("/l402/usage", "usage", g.showUsage)
	m.POST("/l402/topup", g.public("topup", g.topUp))
	read(pathAlive, "healthz", g.healthz)
	read(pathReady, "readyz", g.readyz)
	return g.serve(m)
}

// withTidyPath is a request whose path has no doubled slashes and none at its end, which
// base URLs in configurations of clients leave there. No route differs by them, but names
// of models may.
func withTidyPath(r *http.Request) *http.Request {
	path := r.URL.Path
	if !strings.Contains(path, "//") && (len(path) < 2 || path[len(path)-1] != '/') || len(path) > len(pathModels)+1 && hasPrefix(path, pathModels+"/") {
		return r
	}
	tidy := "/" + strings.Join(strings.FieldsFunc(path, func(c rune) bool { return c == '/' }), "/")
	u := *r.URL
	u.Path, u.RawPath = tidy, ""
	clone := *r
	clone.URL = &u
	return &clone
}

// AdminHandler is what the operator's listener serves: metrics in the open, the
// rest behind the bearer token.
func (g *Gateway) AdminHandler() http.Handler {
	a := &admin{Gateway: g}
	m := newMux()
	m.NoRoute(plain(http.HandlerFunc(adminUnknown)))
	m.NoMethod(plain(http.HandlerFunc(adminUnknown)))
	m.GET("/metrics", plain(g.metrics.Handler()))
	m.GET("/healthz", plain(http.HandlerFunc(adminAlive)))
	m.GET("/", plain(a.dashboard()))
	m.GET("/admin/status", plain(a.guard(a.status)))
	m.GET("/admin/backends", plain(a.guard(a.backends)))
	m.POST("/admin/backends", plain(a.guard(a.drain)))
	m.GET("/admin/config", plain(a.guard(a.config)))
	m.POST("/admin/config/diff", plain(a.guard(a.compare)))
	m.POST("/admin/reload", plain(a.guard(a.reload)))
	m.GET("/admin/prices", plain(a.guard(a.prices)))
	m.GET("/admin/epochs", plain(a.guard(a.epochs)))
	m.POST("/admin/prices", plain(a.guard(a.override)))
	m.GET("/admin/deposits", plain(a.guard(a.deposits)))
	m.GET("/admin/accounts/:id", plain(a.guard(a.account)))
	m.POST("/admin/accounts/:id/:action", plain(a.guard(a.accountAction)))
	return m
}

// newMux returns a map that answers exactly the paths it was given: no
// redirects, no belief in forwarded addresses.
func newMux() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	m := gin.New()
	m.HandleMethodNotAllowed = true
	m.RedirectTrailingSlash = false
	m.RedirectFixedPath = false
	m.ForwardedByClientIP = false
	return m
}

// public calls a handler with the exchange that serve made, below gin's own
// writer, which would swallow errors of Flush.
func (g *Gateway) public(route string, handle func(*exchange) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		x, ok := c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(*exchange)
		if !ok { // served without Handler's outermost layer
			c.AbortWithStatus(http.StatusInternalServerError)
			return
		}
		x.route = route
		if err := handle(x); err != nil {
			x.fail(err)
		}
		c.Writer.WriteHeaderNow() // the exchange ignores it; gin then adds no body of its own
	}
}

// plain adapts a handler, with gin's path parameters as path values.
func plain(h http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		for _, p := range c.Params {
			c.Request.SetPathValue(p.Key, p.Value)
		}
		c.Status(http.StatusOK) // NoRoute presets 404
		h.ServeHTTP(c.Writer, c.Request)
		c.Writer.WriteHeaderNow()
	}
}

// dialectOf is the dialect of a request. A route that does not exist is answered
// as the caller's SDK would have it: Anthropic's name themselves.
func dialectOf(r *http.Request) problem.Dialect {
	switch path := r.URL.Path; {
	case problem.IsGRPC(r.Header):
		return problem.GRPC
	case path == pathAlive, path == pathReady, hasPrefix(path, "/l402/", "/.well-known/"):
		return problem.Plain
	case path == "/v1/messages", hasPrefix(path, "/v1/messages/"), r.Header["Anthropic-Version"] != nil:
		return problem.Anthropic
	}
	return problem.OpenAI
}
