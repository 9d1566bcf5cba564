package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
)

// TestWrongPreimage is told apart from garbage: 401, and no challenge that a
// client would pay once more.
func TestWrongPreimage(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 4000)
	wrong := k
	wrong.preimage = l402.NewPreimage()
	for _, h := range []http.Header{
		wrong.header(),
		header("Macaroon", hex.EncodeToString(k.attenuate(t, "preimage="+wrong.preimage.Hex()).macaroon)),
	} {
		lab.post(t, chat("model", `"running"`), h).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
		lab.do(t, http.MethodGet, "/l402/balance", "", h).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
	}
	lab.wantFree(t, k)
	// An unpaid challenge with a guessed preimage is no credential either.
	unpaid := lab.post(t, chat("model", `"running"`), nil).challenge(t)
	guess := credential{unpaid.macaroon, l402.NewPreimage(), unpaid.id, 0}
	lab.post(t, chat("model", `"running"`), guess.header()).wantProblem(t, http.StatusUnauthorized, "invalid-credential")
}

// TestGarbageCredentials gets a fresh challenge for a new account whatever
// stands where a credential should.
func TestGarbageCredentials(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 4000)
	std := base64.StdEncoding.EncodeToString
	mac, pre := std(k.macaroon), k.preimage.Hex()
	oldID := altered(k.macaroon, 40) // within the identifier
	rows := map[string]http.Header{
		"scheme alone":            header("Authorization", "L402"),
		"empty":                   header("Authorization", ""),
		"no base64":               header("Authorization", "L402 !!!!:"+pre),
		"no preimage":             header("Authorization", "L402 "+mac),
		"empty preimage":          header("Authorization", "L402 "+mac+":"),
		"short preimage":          header("Authorization", "L402 "+mac+":"+pre[:62]),
		"long preimage":           header("Authorization", "L402 "+mac+":"+pre+"00"),
		"preimage is no hex":      header("Authorization", "L402 "+mac+":"+strings.Repeat("zz", 32)),
		"swapped":                 header("Authorization", "L402 "+pre+":"+mac),
		"cut macaroon":            header("Authorization", "L402 "+std(k.macaroon[:len(k.macaroon)-3])+":"+pre),
		"macaroon with a tail":    header("Authorization", "L402 "+std(append(k.macaroon[:len(k.macaroon):len(k.macaroon)], 0))+":"+pre),
		"another signature":       header("Authorization", "L402 "+std(altered(k.macaroon, -1))+":"+pre),
		"another identifier":      header("Authorization", "L402 "+std(oldID)+":"+pre),
		"JSON":                    header("Authorization", `L402 {"macaroon":"x"}:`+pre),
		"a key for Bearer":        header("Authorization", "Bearer sk-"+pre),
		"Basic":                   header("Authorization", "Basic dXNlcjpwYXNz"),
		"Macaroon is no hex":      header("Macaroon", mac),
		"Macaroon without caveat": header("Macaroon", hex.EncodeToString(k.macaroon)),
		"16 KiB of zeros":         header("Authorization", "L402 "+std(make([]byte, 12<<10))+":"+pre),
		"percent signs":           header("Authorization", "L402 %s%d%n:"+pre),
	}
	for name, h := range rows {
		a := lab.post(t, chat("model", `"running"`), h)
		if a.status != http.StatusPaymentRequired {
			t.Errorf("%s: status %d, want 402\n%s", name, a.status, a.body)
			continue
		}
		if c := a.challenge(t); c.id.TokenID == k.id.TokenID || !strings.HasSuffix(c.problem["type"].(string), "payment-required") {
			t.Errorf("%s: a challenge of type %v for account %s", name, c.problem["type"], c.id.TokenID)
		}
	}
	lab.wantFree(t, k)
}

// TestConflictingCredentials are refused: metering would have to choose.
func TestConflictingCredentials(t *testing.T) {
	t.Parallel()
	one, two := lab.buy(t, 4000), lab.buy(t, 4000)
	hexed := hex.EncodeToString(two.attenuate(t, "preimage="+two.preimage.Hex()).macaroon)
	for name, h := range map[string]http.Header{
		"two Authorizations":          header("Authorization", one.String(), "Authorization", two.String()),
		"Authorization and Macaroon":  header("Authorization", one.String(), "Macaroon", hexed),
		"Macaroon and Grpc-Metadata":  header("Macaroon", hexed, "Grpc-Metadata-Macaroon", hex.EncodeToString(one.attenuate(t, "preimage="+one.preimage.Hex()).macaroon)),
		"one of them narrowed":        header("Authorization", one.String(), "Authorization", one.attenuate(t, "inference_budget_msat=1").String()),
		"a good and a malformed one":  header("Authorization", one.String(), "Authorization", "L402 x:y"),
		"different preimages":         header("Authorization", one.String(), "Authorization", l402.FormatCredential(one.macaroon, two.preimage)),
		"a good one and a bad header": header("Authorization", one.String(), "Macaroon", "zz"),
	} {
		if a := lab.post(t, chat("model", `"running"`), h); a.status != http.StatusBadRequest || a.header["Www-Authenticate"] != nil {
			t.Errorf("%s: status %d, want 400 and no challenge\n%s", name, a.status, a.body)
		}
	}
	lab.wantFree(t, one)
	lab.wantFree(t, two)
}

// TestGarbageBodies costs a holder nothing and gets the right 4xx.
func TestGarbageBodies(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	model := `"model":"running",`
	rows := map[string]struct {
		body   string
		status int
	}{
		"empty":                     {"", 400},
		"no JSON":                   {"{", 400},
		"null":                      {"null", 400},
		"a list":                    {"[]", 400},
		"a string":                  {`"chat"`, 400},
		"not UTF-8":                 {`{"model":"running","messages":[{"role":"user","content":"` + "\xff" + `"}]}`, 400},
		"something behind it":       {chat("model", `"running"`) + "{}", 400},
		"nested too deep":           {`{` + model + `"messages":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, 400},
		"no model":                  {chat("model", ""), 400},
		"model is a number":         {chat("model", "1"), 400},
		"an unknown model":          {chat("model", `"nothing"`), 404},
		"no messages":               {chat("model", `"running"`, "messages", ""), 400},
		"messages are empty":        {chat("model", `"running"`, "messages", "[]"), 400},
		"messages are text":         {chat("model", `"running"`, "messages", `"Hello"`), 400},
		"max_tokens 0":              {chat("model", `"running"`, "max_tokens", "0"), 400},
		"max_tokens -2":             {chat("model", `"running"`, "max_tokens", "-2"), 400},
		"max_tokens 1.5":            {chat("model", `"running"`, "max_tokens", "1.5"), 400},
		"max_tokens 1e-1":           {chat("model", `"running"`, "max_tokens", "1e-1"), 400},
		"max_tokens is text":        {chat("model", `"running"`, "max_tokens", `"24"`), 400},
		"n 0":                       {chat("model", `"running"`, "n", "0"), 400},
		"n is text":                 {chat("model", `"running"`, "n", `"2"`), 400},
		"n beyond int64":            {chat("model", `"running"`, "n", "99999999999999999999"), 400},
		"best_of 3":                 {chat("model", `"running"`, "best_of", "3"), 400},
		"beam search":               {chat("model", `"running"`, "use_beam_search", "true"), 400},
		"an unknown field":          {chat("model", `"running"`, "x_secret", `"free"`), 400},
		"a picture elsewhere":       {chat("model", `"running"`, "messages", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]`), 400},
		"best_of -3":                {chat("model", `"running"`, "best_of", "-3"), 400},
		"stream is text":            {chat("model", `"running"`, "stream", `"yes"`), 400},
		"stream_options is text":    {chat("model", `"running"`, "stream", "true", "stream_options", `"x"`), 400},
		"include_usage is a number": {chat("model", `"running"`, "stream", "true", "stream_options", `{"include_usage":1}`), 400},
		"model twice":               {`{"model":"plain",` + strings.TrimPrefix(chat("model", `"running"`), "{"), 400},
		"max_tokens twice":          {`{"max_tokens":1,` + strings.TrimPrefix(chat("model", `"running"`), "{"), 400},
		"model twice, escaped":      {`{"mod\u0065l":"plain",` + strings.TrimPrefix(chat("model", `"running"`), "{"), 400},
		"MAX_TOKENS":                {`{"MAX_TOKENS":1,` + strings.TrimPrefix(chat("model", `"running"`), "{"), 400},
		"parameters hidden":         {chat("model", `"running"`, "sampling_params", `{"n":9}`), 400},
	}
	for name, row := range rows {
		a := lab.post(t, row.body, k.header())
		if a.status != row.status || a.header["Www-Authenticate"] != nil {
			t.Errorf("%s: status %d, want %d without a challenge\n%s", name, a.status, row.status, a.body)
			continue
		}
		a.wantProblem(t, row.status, "invalid-request")
	}
	lab.wantFree(t, k)
	if got := len(lab.charges(t, k)); got != 0 {
		t.Errorf("%d rows of usage for nothing", got)
	}
}

// TestGarbageRequests is the same for all that is around the body.
func TestGarbageRequests(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	good := chat("model", `"running"`)
	do := func(method, path, body string, more ...string) *answer {
		t.Helper()
		return lab.do(t, method, path, body, k.header(more...))
	}
	do("GET", chatPath, "").wantProblem(t, http.StatusMethodNotAllowed, "unknown-route")
	do("DELETE", "/l402/balance", "").wantProblem(t, http.StatusMethodNotAllowed, "unknown-route")
	for _, path := range []string{"/v1/completions/1", "/v1/chat/completion", "/v1/chat/completions/1", "/tokenize", "/metrics", "/admin/status", "/V1/chat/completions"} {
		do("POST", path, good).wantProblem(t, http.StatusNotFound, "unknown-route")
	}
	do("POST", chatPath, good, "Content-Encoding", "gzip").wantProblem(t, http.StatusUnsupportedMediaType, "invalid-request")
	do("POST", chatPath, chat("messages", `[{"role":"user","content":`+quoted(strings.Repeat("x", 9<<20))+`}]`)).
		wantProblem(t, http.StatusRequestEntityTooLarge, "invalid-request")
	for name, value := range map[string]string{
		"L402-Max-Cost-Msat": "much", "L402-Deposit-Msat": "-5", "L402-Allow-Truncate": "yes", "L402-Client-Nonce": "short",
		"Idempotency-Key": strings.Repeat("k", 300),
	} {
		do("POST", chatPath, good, name, value).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	do("POST", chatPath, good, "L402-Max-Cost-Msat", "1", "L402-Max-Cost-Msat", "100000").wantProblem(t, http.StatusBadRequest, "invalid-request")
	for _, query := range []string{"?since=yesterday", "?limit=0", "?limit=x", "?next=zz", "?%zz"} {
		do("GET", "/l402/usage"+query, "").wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	lab.wantFree(t, k)
	// The account works all the same.
	lab.post(t, good, k.header()).want(t, http.StatusOK)
}
