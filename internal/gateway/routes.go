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

// Handler returns the handler of the public listener. Only this file uses gin, and it uses gin only
// to map URLs. All other files use plain net/http.
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

// withTidyPath returns a request whose path has no double slash and no slash at its end. Base URLs in
// the configurations of clients cause such slashes. The path is not changed where it holds the name
// of a model, because such names may differ only in their slashes.
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

// AdminHandler returns the handler of the operator's listener. Metrics, liveness and the dashboard page
// are open. All else needs the bearer token.
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

// newMux returns a map that answers exactly the paths that it gets. It redirects no request and ignores
// forwarded addresses.
func newMux() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	m := gin.New()
	m.HandleMethodNotAllowed = true
	m.RedirectTrailingSlash = false
	m.RedirectFixedPath = false
	m.ForwardedByClientIP = false
	return m
}

// public calls a handler with the exchange that serve made. It bypasses gin's own writer, because that
// would drop the errors of Flush.
func (g *Gateway) public(route string, handle func(*exchange) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		x, ok := c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(*exchange)
		if !ok { // the handler that Handler returns was bypassed
			c.AbortWithStatus(http.StatusInternalServerError)
			return
		}
		x.route = route
		if err := handle(x); err != nil {
			x.fail(err)
		}
		c.Writer.WriteHeaderNow() // the exchange ignores it; gin then adds no body
	}
}

// plain adapts a handler for gin, and gives it gin's path parameters as path values.
func plain(h http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		for _, p := range c.Params {
			c.Request.SetPathValue(p.Key, p.Value)
		}
		c.Status(http.StatusOK) // replaces the 404 that NoRoute sets
		h.ServeHTTP(c.Writer, c.Request)
		c.Writer.WriteHeaderNow()
	}
}

// dialectOf returns the dialect of a request. For a route that does not exist, it is the dialect of the
// caller's SDK, because Anthropic's SDKs name themselves in a header.
func dialectOf(r *http.Request) problem.Dialect {
	switch path := r.URL.Path; {
	case problem.IsGRPC(r.Header):
		return problem.GRPC
	case path == pathAlive, path == pathReady, hasPrefix(path, "/l402/", "/.well-known/"):
		return problem.Plain
	case speaksAnthropic(r):
		return problem.Anthropic
	}
	return problem.OpenAI
}

// speaksAnthropic reports whether a request is of Anthropic's API, by its path or by the header that
// Anthropic's SDKs send.
func speaksAnthropic(r *http.Request) bool {
	path := r.URL.Path
	return path == "/v1/messages" || hasPrefix(path, "/v1/messages/") || r.Header["Anthropic-Version"] != nil
}
