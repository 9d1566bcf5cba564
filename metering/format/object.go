package format

import "sluice.example/sluice/metering/format/rawjson"

// IsObject reports whether v is one JSON object, read leniently.
func IsObject(v []byte) bool {
	if CheckObject(v) == nil {
		return true
	}
	v = RepairNumbers(v)
	return v != nil && CheckObject(v) == nil
}

// RepairNumbers is v with the numbers that are no JSON, NaN and Infinity, which
// Python servers write for the logarithm of nothing, made null. It is nil where
// there are none.
func RepairNumbers(v []byte) []byte {
	var out []byte
	kept := 0
	for i := 0; i < len(v); {
		switch c := v[i]; {
		case c == '"':
			end, err := rawjson.CheckString(v, i)
			if err != nil {
				return nil
			}
			i = end
			continue
		case c == '-' || c == 'N' || c == 'I':
			end := i
			for end < len(v) && !rawjson.IsDelimiter(v[end]) {
				end++
			}
			switch string(v[i:end]) {
			case "NaN", "-NaN", "Infinity", "-Infinity":
				out = append(append(out, v[kept:i]...), "null"...)
				kept = end
			}
			i = end
			continue
		}
		i++
	}
	if out == nil {
		return nil
	}
	return append(out, v[kept:]...)
}

// CheckObject checks that data is one JSON object.
func CheckObject(data []byte) error {
	start := rawjson.SkipSpace(data, 0)
	if start == len(data) || data[start] != '{' {
		return rawjson.Invalid(start)
	}
	end, err := rawjson.CheckValue(data, start, rawjson.MaxDepth)
	if err != nil {
		return err
	}
	if end = rawjson.SkipSpace(data, end); end != len(data) {
		return rawjson.Invalid(end)
	}
	return nil
}
