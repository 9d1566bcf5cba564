package format

import "testing"

func TestReadFailure(t *testing.T) {
	for document, want := range map[string]Failure{
		``: {}, `<html>no</html>`: {}, `{"error":{"message":"half`: {}, `[1,`: {}, `[DONE]`: {}, `{}`: {}, `[]`: {},
		`a line`: {Message: "a line"},
		`"text"`: {Message: "text"},
		`{"error":{"message":"m","type":"T","code":"c","param":"p"}}`:                    {Message: "m", Kind: "t c", Param: "p"},
		`{"error":{"message":"m","code":"400"}}`:                                         {Message: "m", Kind: "400", Code: 400},
		`{"error":"m","error_type":"validation"}`:                                        {Message: "m", Kind: "validation"},
		`{"object":"error","message":"m","type":"BadRequestError","code":503}`:           {Message: "m", Kind: "badrequesterror", Code: 503},
		`[{"error":{"code":404,"message":"m","status":"NOT_FOUND"}}]`:                    {Message: "m", Kind: "not_found", Code: 404},
		`{"message":{"detail":[{"type":"x","msg":"m"}]},"type":"invalid_request_error"}`: {Message: "m", Kind: "x invalid_request_error"},
		`{"errors":[{"message":"m","code":5006}],"success":false}`:                       {Message: "m"},
		`{"detail":{"error":"m"}}`:                                                       {Message: "m"},
		`{"detail":[{"loc":["body"],"msg":"m"}]}`:                                        {Message: "m"},
		`{"error":{"message":["m","n"]}}`:                                                {Message: "m"},
		`{"error":{"message":{"text":"m"}}}`:                                             {Message: "m"},
		`{"statusCode":400,"message":["m"],"error":"Bad Request"}`:                       {Message: "m", Code: 400},
		`{"error":"Bad Request"}`:                                                        {Message: "Bad Request"},
		`{"base_resp":{"status_code":1027,"status_msg":"m"}}`:                            {Message: "m"},
		`{"error":{"message":"m","code":7,"status":"6000000000000000"}}`:                 {Message: "m", Kind: "6000000000000000"},
	} {
		if got := ReadFailure([]byte(document)); got != want {
			t.Errorf("%s: %+v, want %+v", document, got, want)
		}
	}
}

func TestRoutine(t *testing.T) {
	for words, want := range map[string]bool{
		"Not Found": true, "404 page not found": true, "404 Not Found": true, "error code: 502": true, "Internal Server Error": true,
		"HTTP/1.1 503 Service Unavailable": true, "Bad Gateway.": true,
		"": false, "model not found": false, "image input is not supported": false, "12": false, "not": false,
	} {
		if Routine(words) != want {
			t.Errorf("%q: %t", words, !want)
		}
	}
}

func TestWhomWordsBlame(t *testing.T) {
	const request, content, owner = 1, 2, 4
	for document, want := range map[string]int{
		`{"error":{"message":"image input is not supported","type":"server_error"}}`:                                                request,
		`{"error":"Input validation error: too many tokens","error_type":"validation"}`:                                             request,
		`{"error":{"message":"x","type":"invalid_request_error","code":"context_length_exceeded"}}`:                                 request,
		`{"error":{"message":"x","code":400}}`:                                                                                      request,
		`{"error":{"message":"x","code":404}}`:                                                                                      0,
		`{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","code":"invalid_api_key"}}`:                owner,
		`{"error":{"message":"You exceeded your current quota","type":"insufficient_quota"}}`:                                       owner,
		`{"error":{"message":"CUDA error: the provided PTX was compiled with an unsupported toolchain."}}`:                          0,
		`{"error":{"message":"Your input was flagged. No credits were charged."}}`:                                                  content | owner,
		`{"error":{"message":"You have insufficient permissions. Missing scopes: api.model.read.","type":"invalid_request_error"}}`: request | owner,
		`{"error":{"message":"Your account was flagged for abuse"}}`:                                                                owner,
		`shape mismatch`: 0,
	} {
		f := ReadFailure([]byte(document))
		got := 0
		for bit, says := range map[int]bool{request: f.BlamesRequest(), content: f.BlamesContent(), owner: f.BlamesOwner()} {
			if says {
				got |= bit
			}
		}
		if got != want {
			t.Errorf("%s: blames %03b, want %03b", document, got, want)
		}
	}
}
