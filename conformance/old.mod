// Builds gosdk with the last release of OpenAI's SDK that fails on a block of
// comments alone: go build -modfile=old.mod ./gosdk.
module sluice.example/sluice/conformance

go 1.26.0

require (
	github.com/openai/openai-go/v3 v3.42.0
	github.com/sashabaranov/go-openai v1.41.2
)

require (
	github.com/tidwall/gjson v1.18.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
)

ignore ./node_modules
