package format

import "fmt"

// RequestError says why a request is refused and what to do about it. It is
// the client's fault and meant for the client's eyes.
type RequestError struct {
	Reason string
	Param  string // the field that is refused; empty: none in particular
}

func (e *RequestError) Error() string { return "invalid request: " + e.Reason }

// Refuse makes a *RequestError of a reason.
func Refuse(format string, args ...any) error {
	return &RequestError{Reason: fmt.Sprintf(format, args...)}
}

// RefuseParam is Refuse for the field, or the path of a member, named param.
func RefuseParam(param, format string, args ...any) error {
	return &RequestError{Reason: fmt.Sprintf(format, args...), Param: param}
}

// About names the field that a refusal is about, unless it is named already.
func About(field string, err error) error {
	if e, ok := err.(*RequestError); ok && e.Param == "" {
		e.Param = Clip(field)
	}
	return err
}

// Clip shortens hostile input before it goes into an error.
func Clip(s string) string {
	const most = 32 // characters
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}
