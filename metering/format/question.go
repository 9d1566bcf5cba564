package format

import (
	"errors"
	"fmt"
	"net/http"
)

// Question is one call that makes a backend count tokens without generating any.
type Question struct {
	Path string // of a POST at the backend
	Body []byte // JSON
	// Header goes with the call, beside what it needs in any case; nil: nothing.
	Header http.Header

	Unseen   int64 // tokens that the call is not shown: at most
	Template int64 // and likely
	Least    int64 // a smaller count cannot be true
	Read     func(answer []byte) (int64, error)
	Next     func(answer []byte) (Question, error) // the call that goes on with the answer; nil: read has the count
}

// Likely is the number of tokens of a prompt of which this question counted n:
// what it was not shown is added as it usually is.
func (q *Question) Likely(n int64) int64 { return AddSat(n, q.Template) }

// ErrTokenCount reports an answer of a tokenizer without a count that can be
// true.
var ErrTokenCount = errors.New("no usable token count in the answer of the tokenizer")

// Answer reads the answer to a question: a count of at least 1 token, or another
// question to ask, whose answer has it. It fails with ErrTokenCount; so does a
// count of nothing for a text that is not empty, and one that would need tokens
// longer than any vocabulary has.
func (q *Question) Answer(body []byte) (tokens int64, next *Question, err error) {
	if q.Next != nil {
		following, err := q.Next(body)
		if err != nil {
			return 0, nil, err
		}
		following.Unseen, following.Template, following.Least, following.Header = q.Unseen, q.Template, q.Least, q.Header
		return 0, &following, nil
	}
	if tokens, err = q.Read(body); err == nil && tokens < q.Least {
		return 0, nil, fmt.Errorf("%w: %d tokens are too few", ErrTokenCount, tokens)
	}
	return tokens, nil, err
}

// longestToken is more bytes than a token has on average in any text: the longest
// runs of spaces in known vocabularies have 128.
const longestToken = 256

// LeastTokens is the smallest count that is believed of so many bytes.
func LeastTokens(bytes int64) int64 { return max(1, bytes/longestToken) }
