package pricing

// Unit is something that is counted and has a price. The ledger stores the number of a unit, so a unit
// keeps its number for ever, and no other unit gets that number.
type Unit uint8

// The units. Those after GPUMicros are for APIs that do not count tokens alone.
const (
	NoUnit               Unit = 0  // never counted, and never has a rate
	InputTokens          Unit = 1  // prompt tokens, including all of their parts
	CachedInputTokens    Unit = 2  // the part of InputTokens that a prompt cache served
	OutputTokens         Unit = 3  // completion tokens, including reasoning and tool calls
	Calls                Unit = 4  // answered calls
	Bytes                Unit = 5  // body bytes delivered to the client
	WallMicros           Unit = 6  // wall time, in microseconds
	GPUMicros            Unit = 7  // GPU busy time, in microseconds
	CacheWriteTokens     Unit = 8  // the part of InputTokens that was written to a prompt cache
	LongCacheWriteTokens Unit = 9  // the part of InputTokens that was written to a prompt cache for an hour
	AudioInputTokens     Unit = 10 // the part of InputTokens that is audio
	AudioOutputTokens    Unit = 11 // the part of OutputTokens that is audio
	AudioMicros          Unit = 12 // length of the audio that the client sent, in microseconds
	SpeechMicros         Unit = 13 // length of the audio that was generated, in microseconds
	Characters           Unit = 14 // Unicode code points of a text that is to be spoken
	Images               Unit = 15 // images delivered
	Pixels               Unit = 16 // pixels of the images delivered
	Steps                Unit = 17 // inference steps of an image generator
	Searches             Unit = 18 // rerank queries of at most 100 documents each
	Documents            Unit = 19 // documents ranked or scored
	UploadedBytes        Unit = 20 // body bytes that the client sent
	BackendUnits         Unit = 21 // units that a trusted backend defines and counts itself

	unitEnd = 22
)

// These are how many of a unit one rate is for. Each divides denominator.
const (
	one     = 1
	million = 1_000_000 // tokens, characters, pixels, or the microseconds of a second
	mebi    = 1 << 20   // bytes
)

// spec is a unit's line of the table specs.
type spec struct {
	name string // its name in the JSON of a usage
	rate string // the name of its rate in the JSON of a rate card
	per  int64  // how many of the unit one rate is for
	of   Unit   // the unit of which this unit is a part; NoUnit means that there is none
	what string // what one rate is for, in words
}

// specs is the only table of units. The count of a whole includes its parts. A part costs its own rate
// in place of the whole's rate. A part without a rate costs the whole's rate. A part has no parts.
var specs = [unitEnd]spec{
	InputTokens:          {"input_tokens", "input_msat_per_mtok", million, NoUnit, "a million prompt tokens"},
	CachedInputTokens:    {"cached_input_tokens", "cached_input_msat_per_mtok", million, InputTokens, "a million prompt tokens served from a cache"},
	OutputTokens:         {"output_tokens", "output_msat_per_mtok", million, NoUnit, "a million completion tokens"},
	Calls:                {"calls", "call_msat", one, NoUnit, "an answered call"},
	Bytes:                {"bytes", "mib_msat", mebi, NoUnit, "2^20 bytes delivered"},
	WallMicros:           {"micros", "second_msat", million, NoUnit, "a second of wall time"},
	GPUMicros:            {"gpu_micros", "gpu_second_msat", million, NoUnit, "a second of GPU busy time"},
	CacheWriteTokens:     {"cache_write_tokens", "cache_write_msat_per_mtok", million, InputTokens, "a million prompt tokens written to a cache"},
	LongCacheWriteTokens: {"cache_write_1h_tokens", "cache_write_1h_msat_per_mtok", million, InputTokens, "a million prompt tokens written to a cache for an hour"},
	AudioInputTokens:     {"audio_input_tokens", "audio_input_msat_per_mtok", million, InputTokens, "a million prompt tokens of sound"},
	AudioOutputTokens:    {"audio_output_tokens", "audio_output_msat_per_mtok", million, OutputTokens, "a million completion tokens of sound"},
	AudioMicros:          {"audio_micros", "audio_second_msat", million, NoUnit, "a second of sound received"},
	SpeechMicros:         {"speech_micros", "speech_second_msat", million, NoUnit, "a second of sound made"},
	Characters:           {"characters", "character_msat_per_mchar", million, NoUnit, "a million characters"},
	Images:               {"images", "image_msat", one, NoUnit, "an image"},
	Pixels:               {"pixels", "megapixel_msat", million, NoUnit, "a million pixels of images"},
	Steps:                {"steps", "step_msat", one, NoUnit, "an inference step of an image"},
	Searches:             {"searches", "search_msat", one, NoUnit, "a query over at most 100 documents"},
	Documents:            {"documents", "document_msat", one, NoUnit, "a document ranked"},
	UploadedBytes:        {"uploaded_bytes", "upload_mib_msat", mebi, NoUnit, "2^20 bytes received"},
	BackendUnits:         {"backend_units", "backend_unit_msat", one, NoUnit, "a unit that the backend counts"},
}

// parts are the units that are a part of another unit.
var parts = [...]Unit{CachedInputTokens, CacheWriteTokens, LongCacheWriteTokens, AudioInputTokens, AudioOutputTokens}

// AllUnits returns the units in the order of their numbers.
func AllUnits() []Unit {
	all := make([]Unit, 0, unitEnd-1)
	for u := NoUnit + 1; u < unitEnd; u++ {
		all = append(all, u)
	}
	return all
}

// Known says whether this version has a unit of that number.
func (u Unit) Known() bool { return u > NoUnit && u < unitEnd }

// spec returns u's line of the table. For an unknown unit it returns an empty line.
func (u Unit) spec() *spec {
	if !u.Known() {
		u = NoUnit
	}
	return &specs[u]
}

// String returns the unit's name in the JSON of a usage.
func (u Unit) String() string { return u.spec().name }

// RateName returns the name of the unit's rate in the JSON of a rate card.
func (u Unit) RateName() string { return u.spec().rate }

// Per returns how many of the unit one rate is for, for example a million tokens.
func (u Unit) Per() int64 { return u.spec().per }

// Of returns the unit of which u is a part, or NoUnit.
func (u Unit) Of() Unit { return u.spec().of }

// Describe returns in words what one rate of the unit is for.
func (u Unit) Describe() string { return u.spec().what }

// Units is how much of each unit a request consumed or may consume, indexed by Unit. The zero value
// means nothing. Negative counts are invalid. Values compare with ==.
//
//	used := pricing.Units{pricing.InputTokens: 900, pricing.Calls: 1}
//	used[pricing.OutputTokens] = 256
type Units [unitEnd]int64

// Clamped returns u without what Cost would refuse. Negative counts become 0. Parts that are together
// more than their whole are reduced to the whole, beginning with the last part.
func (u Units) Clamped() Units {
	u[NoUnit] = 0
	for i := range u {
		u[i] = max(0, u[i])
	}
	rest := u
	for _, part := range parts {
		whole := specs[part].of
		u[part] = min(u[part], rest[whole])
		rest[whole] -= u[part]
	}
	return u
}

// takeApart subtracts the parts from their wholes, so that each token counts once. The caller ensures
// that no count is negative. takeApart returns false if parts are more than their whole.
func (u *Units) takeApart() bool {
	for _, part := range parts {
		if u[part] == 0 {
			continue
		}
		whole := specs[part].of
		if u[whole] -= u[part]; u[whole] < 0 {
			return false
		}
	}
	return true
}
