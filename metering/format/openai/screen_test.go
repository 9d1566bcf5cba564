package openai_test

import (
	"slices"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// What is within messages, parts, tools and options is known too, or refused by
// the path of its name.
func TestNestedMembersAreRefusedByPath(t *testing.T) {
	message := func(m string) string { return `{"model":"m","messages":[{"role":"user","content":"x"},` + m + `]}` }
	part := func(p string) string { return message(`{"role":"user","content":["y",` + p + `]}`) }
	for body, param := range map[string]string{
		message(`{"role":"user","content":"x","zzz":1}`):           "messages[1].zzz",
		message(`{"role":"user","Content":"x"}`):                   "messages[1].Content",
		message(`{"role":"user","content":"x","images":["AAAA"]}`): "messages[1].images",
		message(`{"role":"user","audio":{"id":"x"}}`):              "messages[1].audio",
		message(`{"role":"tool","content":"x","channel":"final"}`): "messages[1].channel",
		message(`{"role":"user","content":"x","name":["y"]}`):      "messages[1].name",
		message(`{"role":"user","content":5}`):                     "messages[1].content",
		message(`{"role":"user","content":{"type":"image_url"}}`):  "messages[1].content",
		message(`"x"`): "messages[1]",
		part(`["x"]`):  "messages[1].content[1]",
		part(`{"type":"image_embeds","image_embeds":"gAS="}`):                           "messages[1].content[1].type",
		part(`{"type":"image","image":"/etc/passwd"}`):                                  "messages[1].content[1].type",
		part(`{"type":"text","text":{"x":1}}`):                                          "messages[1].content[1].text",
		part(`{"type":"text","text":"x","uuid":"other"}`):                               "messages[1].content[1].uuid",
		part(`{"type":"image_url","image_url":{"url":"data:,","uuid":"a"}}`):            "messages[1].content[1].image_url.uuid",
		part(`{"type":"file","file":{"file_id":"file-1"}}`):                             "messages[1].content[1].file.file_id",
		part(`{"type":"input_audio","input_audio":{"data":"/etc/passwd"}}`):             "messages[1].content[1].input_audio.data",
		part(`{"type":"text","Image_URL":{"url":"data:"}}`):                             "messages[1].content[1].Image_URL",
		string(ask(`"tools":[{"type":"web_search"}]`)):                                  "tools[0].type",
		string(ask(`"tools":[{"type":"mcp","server_url":"http://x"}]`)):                 "tools[0].type",
		string(ask(`"tools":[{"type":"function","name":"f"}]`)):                         "tools[0].name",
		string(ask(`"tools":[{"type":"function","function":{},"server":{"url":"x"}}]`)): "tools[0].server",
		string(ask(`"tools":{"type":"function"}`)):                                      "tools",
		string(ask(`"stream_options":{"zzz":true}`)):                                    "stream_options.zzz",
		string(ask(`"chat_template_kwargs":{"chat_template":"{{x}}"}`)):                 "chat_template_kwargs.chat_template",
		string(ask(`"chat_template_kwargs":{"tokenize":true}`)):                         "chat_template_kwargs.tokenize",
		string(ask(`"chat_template_kwargs":{"x":[1]}`)):                                 "chat_template_kwargs.x",
		string(ask(`"chat_template_kwargs":[1]`)):                                       "chat_template_kwargs",
	} {
		_, err := openai.Parse([]byte(body))
		if got := refusedParam(t, body, err); got != param {
			t.Errorf("%s: param %q, want %q", body, got, param)
		}
	}
}

// An answer that is echoed as it came passes without what says nothing; the rest
// stays byte for byte.
func TestEchoedAnswersAreCleaned(t *testing.T) {
	body := `{"model":"m","messages":[ {"role":"user", "content":"x"} , {"role":"assistant","content":"y","refusal":null,"annotations":[],"audio":null,` +
		`"function_call":null,"reasoning_details":[{"type":"reasoning.text","text":"long"}],"provider_specific_fields":{"a":1},"images":[],"zzz":{}},` +
		`{"role":"user","content":[{"type":"text","text":"z","cache_control":{"type":"ephemeral"}},{"type":"text","text":"w"}]}],"max_tokens":3}`
	want := `[ {"role":"user", "content":"x"} , {"role":"assistant","content":"y","refusal":null},` +
		`{"role":"user","content":[{"type":"text","text":"z"},{"type":"text","text":"w"}]}]`
	r := parse(t, []byte(body))
	if got := string(sent(t, r, format.EngineVLLM)["messages"]); got != want {
		t.Errorf("the backend gets\n%s\nwant\n%s", got, want)
	}
	if b, err := r.Bound(limits); err != nil || b.Open || b.Input > 200 {
		t.Errorf("bound %+v, %v", b, err)
	}
}

// A backend fetches nothing unless the owner allows the host, and no spelling of
// an address gets around that.
func TestRemoteMediaNeedsAnAllowedHost(t *testing.T) {
	allowed := format.Policy{MediaHosts: []string{"cdn.example.com", "*.images.example"}}
	body := func(url string) []byte {
		return []byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + url + `"}}]}]}`)
	}
	for url, want := range map[string]struct{ without, with bool }{
		"data:image/png;base64,AAAA":              {true, true},
		"https://cdn.example.com/a.png":           {false, true},
		"http://CDN.example.com:8080/a.png":       {false, true},
		"https://a.images.example/x?y#z":          {false, true},
		"https://images.example/x":                {false, false},
		"https://evilimages.example/x":            {false, false},
		"https://.images.example/x":               {false, false},
		"http://169.254.169.254/latest/meta-data": {false, false},
		"file:///etc/passwd":                      {false, false},
		"/etc/passwd":                             {false, false},
		"s3://bucket/key":                         {false, false},
		"https://cdn.example.com@10.0.0.1/":       {false, false},
		"https://10.0.0.1\\\\@cdn.example.com/":   {false, false},
		"https://cdn.example.com\\\\.evil.com/":   {false, false},
		"https://cdn.example.com%2eevil.com/":     {false, false},
		"https://cdn.example.com:80@10.0.0.1/":    {false, false},
		" https://cdn.example.com/":               {false, false},
		"https://cdn.example.com\\u0000/":         {false, false},
		"https://cdn.exa\\u006dple.com/":          {false, true},
		"HTTPS://cdn.example.com/":                {false, false},
		"https://cdn.example.com.":                {false, false},
		"":                                        {false, false},
	} {
		if _, err := openai.Parse(body(url)); (err == nil) != want.without {
			t.Errorf("%q without hosts: %v", url, err)
		}
		_, err := openai.ParseFor(body(url), func(string) *format.Policy { return &allowed })
		if (err == nil) != want.with {
			t.Errorf("%q with hosts: %v", url, err)
		}
		if err != nil && refusedParam(t, url, err) != "messages[0].content[0].image_url.url" {
			t.Errorf("%q: param %q", url, refusedParam(t, url, err))
		}
	}
	for host, ok := range map[string]bool{"a.example": true, "*.a.example": true, "A.example": false, "http://a": false, "a:80": false, "": false, "*.": false, "*": false} {
		if openai.ValidMediaHost(host) != ok {
			t.Errorf("%q as a host: %v", host, !ok)
		}
	}
}

func TestLongPathsAreNoSound(t *testing.T) {
	body := `{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"` + strings.Repeat(`\u002e.\/`, 40) + `","format":"wav"}}]}]}`
	_, err := openai.Parse([]byte(body))
	refusedParam(t, "a path", err)
}

// What only begins like a data: URL is none: engines read it in ways of their own.
func TestDataURLsHaveTheirForm(t *testing.T) {
	const picture, sound = `{"type":"image_url","image_url":%s}`, `{"type":"file","file":{"file_data":%s}}`
	for url, ok := range map[string]bool{
		"data:,": true, "data:,text": true, "data:;base64,AAAA": true, "data:image/png,AAAA": true, "data:image/png;base64,AAAA": true,
		"data:image/svg+xml;utf8,<svg/>": true, "data:text/plain;charset=utf-8;base64,AAAA": true,
		"data:application/pdf;name=my%20file.pdf;base64,AAAA": true, "data:video/jpeg;base64,AAAA,AAAA": true,
		"data:application/vnd.openxmlformats-officedocument.wordprocessingml.document;base64,AAAA": true,
		"data:": false, "data:AAAA": false, "data:image/png;base64": false, "data:http://169.254.169.254/latest": false,
		"data:http://169.254.169.254/latest,": false, "data://169.254.169.254/latest,x": false, "data:/etc/passwd,": false,
		"data:image/png/x,": false, "data:image,": false, "data:/png,": false, "data:image/,": false, "data:image/png;,x": false,
		"data:image/png;a=http://10.0.0.1,x": false, "data: image/png;base64,AAAA": false, "data:image/png; base64,AAAA": false,
		"data:file:///etc/passwd,x": false, "data:image/png;base64\\\\,x": false, "data:@10.0.0.1/x,": false, " data:,": false, "DATA:,": false,
		"data:" + strings.Repeat("a", 1000) + "/b,": false,
	} {
		for form, param := range map[string]string{picture: "image_url", sound: "file.file_data", `{"type":"image_url","image_url":{"url":%s}}`: "image_url.url"} {
			part := strings.Replace(form, "%s", `"`+url+`"`, 1)
			_, err := openai.Parse([]byte(`{"model":"m","messages":[{"role":"user","content":[` + part + `]}]}`))
			if (err == nil) != ok {
				t.Errorf("%.80s: %v", part, err)
			}
			if err != nil && refusedParam(t, url, err) != "messages[0].content[0]."+param {
				t.Errorf("%.80s: param %q", part, refusedParam(t, url, err))
			}
		}
	}
}
