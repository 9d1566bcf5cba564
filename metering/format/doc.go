// Package format is what every API that is sold has in common: how a stream of events
// is read, what is known of the engines behind the backends, what their answers have
// taught about tokens, and the words in which an API says how much a request can cost
// at most.
//
// An API's own package lies below this one, such as format/openai for chat. A format
// knows no connection and no clock that it was not given, and starts nothing.
package format
