package inference

import "strconv"

// appendUsage appends a usage object to dst. kind says which false counts it has. With an empty
// kind the counts are true.
func (p *plan) appendUsage(dst []byte, kind string, prompt, completion int) []byte {
	if kind == "null" {
		return append(dst, "null"...)
	}
	number := func(n int) []byte {
		switch kind {
		case "zero":
			return []byte("0")
		case "negative":
			return strconv.AppendInt(nil, int64(-n), 10)
		case "huge":
			return []byte("9223372036854775807")
		case "overflow":
			return []byte("1e30")
		case "text":
			return []byte(`"many"`)
		case "fraction":
			return append(strconv.AppendInt(nil, int64(n), 10), ".5"...)
		}
		return strconv.AppendInt(nil, int64(n), 10)
	}
	dst = append(append(dst, `{"prompt_tokens":`...), number(prompt)...)
	dst = append(append(dst, `,"total_tokens":`...), number(prompt+completion)...)
	dst = append(append(dst, `,"completion_tokens":`...), number(completion)...)
	if p.cached > 0 {
		dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
		dst = append(strconv.AppendInt(dst, int64(min(p.cached, prompt)), 10), '}')
	}
	if p.reasoning > 0 {
		dst = append(dst, `,"completion_tokens_details":{"reasoning_tokens":`...)
		dst = append(strconv.AppendInt(dst, int64(min(p.reasoning, completion)), 10), '}')
	}
	return append(dst, '}')
}

// appendQuoted appends s as a JSON string. s must be valid UTF-8.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
