package rawjson

// Complete is the beginning of a JSON object made whole: what is open is closed,
// and a member or an element that has no end is left out, unless it is a string.
// It is nil where nothing can be made of it.
func Complete(v []byte) []byte {
	var open []byte // what closes what is open at i
	safe, safeOpen := -1, 0
	value := true // whether a string at i would be a value, not a key
	i := SkipSpace(v, 0)
	for i < len(v) {
		switch c := v[i]; c {
		case '{', '[':
			open = append(open, c+2)
			value = c == '['
			i++
			safe, safeOpen = i, len(open)
			continue
		case '}', ']':
			if len(open) == 0 || open[len(open)-1] != c {
				return nil
			}
			open = open[:len(open)-1]
			i++
			safe, safeOpen = i, len(open)
			if len(open) == 0 {
				return v[:i]
			}
			continue
		case ':', ',':
			if len(open) == 0 {
				return nil
			}
			value = c == ':' || open[len(open)-1] == ']'
			i++
			continue
		case ' ', '\n', '\r', '\t':
			i++
			continue
		case '"':
			end, err := CheckString(v, i)
			if err != nil {
				if !value || len(open) == 0 {
					return closeAt(v, safe, open, safeOpen)
				}
				return closeString(v, i, open)
			}
			if i = end; value {
				safe, safeOpen = i, len(open)
			}
			continue
		}
		end := i
		for end < len(v) && !IsDelimiter(v[end]) {
			end++
		}
		if end == len(v) {
			break
		}
		if i = end; value {
			safe, safeOpen = i, len(open)
		}
	}
	return closeAt(v, safe, open, safeOpen)
}

// closeAt ends the object behind its last whole part.
func closeAt(v []byte, safe int, open []byte, depth int) []byte {
	if safe < 0 || depth > len(open) {
		return nil
	}
	return appendClosers(append(make([]byte, 0, safe+depth), v[:safe]...), open[:depth])
}

// closeString ends the object within the string that begins at v[i], behind its
// last whole character.
func closeString(v []byte, i int, open []byte) []byte {
	end := len(v)
	for back := 0; back < 8 && end > i; back, end = back+1, end-1 {
		out := append(append(make([]byte, 0, end+1+len(open)), v[:end]...), '"')
		if n, err := CheckString(out, i); err == nil && n == len(out) {
			return appendClosers(out, open)
		}
	}
	return nil
}

func appendClosers(out, open []byte) []byte {
	for k := len(open) - 1; k >= 0; k-- {
		out = append(out, open[k])
	}
	return out
}
