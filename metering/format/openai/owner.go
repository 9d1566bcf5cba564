package openai

import (
	"fmt"
	"slices"

	"sluice.example/sluice/metering/format"
)

// What the owner of a model sets and removes in requests. A member that is set is read
// as if the client had sent it, so that the bound and the checks hold for it too.

var (
	_ format.Ruled = chat{}
	_ format.Ruled = completions{}
	_ format.Ruled = embeddings{}
	_ format.Ruled = rerank{}
	_ format.Ruled = score{}
)

// impose gives a request the members that the owner of its model sets, and takes from
// it those that he removes.
func impose(members []member, p *format.Policy, kindOf func(string) kind) []member {
	if len(p.Set) == 0 && len(p.Remove) == 0 {
		return members
	}
	members = slices.DeleteFunc(members, func(m member) bool {
		sets := func(f format.Field) bool { return f.Name == m.key }
		return slices.Contains(p.Remove, m.key) || slices.ContainsFunc(p.Set, sets)
	})
	for i := range p.Set {
		f := &p.Set[i]
		if k := kindOf(f.Name); !isElsewhere(f.Name, k) {
			members = append(members, member{key: f.Name, kind: k, raw: f.Raw, value: f.Value, forced: true})
		}
	}
	return members
}

// isElsewhere reports whether a member, of the kind k to one API, is unknown to it and
// known to another one.
func isElsewhere(name string, k kind) bool {
	if k != kindUnknown {
		return false
	}
	for _, kindOf := range [...]func(string) kind{kindOf, completionKind, embeddingKind, rerankKind, scoreKind} {
		if kindOf(name) != kindUnknown {
			return true
		}
	}
	return false
}

// checkSet is CheckSet of an API that reads members with read.
func checkSet(name string, value []byte, kindOf func(string) kind, read func(*member, *format.Policy) error) (used bool, err error) {
	k := kindOf(name)
	switch {
	case name == "" || len(name) > 64 || k == kindUnknown && foldsToKnown(name, kindOf):
		return false, fmt.Errorf("%q is not the name of a field", format.Clip(name))
	case isElsewhere(name, k):
		return false, nil
	}
	if why := notTheOwners(k); why != "" {
		return true, fmt.Errorf("%q cannot be set: %s", name, why)
	}
	if why := notSettable(k, name); why != "" {
		return true, fmt.Errorf("%q cannot be set: %s", name, why)
	}
	return true, read(&member{key: name, kind: k, value: value, forced: true}, new(format.Policy))
}

// checkRemove is CheckRemove.
func checkRemove(name string, kindOf func(string) kind) (used bool, err error) {
	k := kindOf(name)
	switch {
	case name == "" || len(name) > 64 || k == kindUnknown && foldsToKnown(name, kindOf):
		return false, fmt.Errorf("%q is not the name of a field", format.Clip(name))
	case isElsewhere(name, k):
		return false, nil
	case k == kindDropped:
		return true, fmt.Errorf("%q reaches no backend in any case; leave it out", name)
	}
	if why := notTheOwners(k); why != "" {
		return true, fmt.Errorf("%q cannot be removed: %s", name, why)
	}
	return true, nil
}

// notTheOwners says why a member of a kind is the client's alone; empty: it is not.
func notTheOwners(k kind) string {
	switch k {
	case kindModel:
		return "the backend's name of the model is given under models of the backend"
	case kindMessages, kindPrompt, kindSuffix, kindText, kindElsewhere:
		return "it is what the client asks"
	case kindStream, kindOptions, kindNoStream, kindEncoding:
		return "the client chooses the form of its answer, and the gateway reads what it asked for"
	case kindCap:
		return "it decides how much the client pays for; max_completion_tokens of the model bounds all requests"
	case kindSequences:
		return "it multiplies the cost of a request, which is the client's to decide"
	}
	return ""
}

// notSettable says why a member cannot have a value of the owner's; empty: it can.
func notSettable(k kind, name string) string {
	switch k {
	case kindBeams:
		return "it generates tokens that nobody counts"
	case kindFloor:
		return "the client would pay for tokens that it did not ask for"
	case kindEcho:
		return "the prompt would come back within the answer, where nothing tells the two apart"
	case kindModalities:
		return "only text is sold"
	case kindForbidden:
		return "it holds a prompt, reaches other hosts or uses state, and nothing bounds what that costs"
	case kindDropped:
		if !isOwners(name) {
			return "the gateway writes it itself, or nothing bounds what it costs"
		}
	}
	if name == "ignore_eos" || name == "ban_eos_token" {
		return "no answer would end before its cap, and the client would pay for that"
	}
	return ""
}

// isOwners reports whether a member that clients cannot send may be the owner's: it
// chooses where and how a request is served, and lengthens nothing.
func isOwners(name string) bool {
	switch name {
	case "service_tier", "provider", "providers", "priority", "keep_alive", "ttl", "num_ctx", "metadata", "client_metadata", "tags",
		"safety_settings", "prompt_cache_retention", "prompt_cache_options", "caching", "transforms", "user_id", "draft_model":
		return true
	}
	return false
}

// CheckSet implements format.Ruled.
func (chat) CheckSet(name string, value []byte) (bool, error) {
	return checkSet(name, value, kindOf, new(Request).read)
}

// CheckRemove implements format.Ruled.
func (chat) CheckRemove(name string) (bool, error) { return checkRemove(name, kindOf) }

// CheckSet implements format.Ruled.
func (completions) CheckSet(name string, value []byte) (bool, error) {
	return checkSet(name, value, completionKind, new(completionRequest).read)
}

// CheckRemove implements format.Ruled.
func (completions) CheckRemove(name string) (bool, error) { return checkRemove(name, completionKind) }

// CheckSet implements format.Ruled.
func (embeddings) CheckSet(name string, value []byte) (bool, error) {
	return checkSet(name, value, embeddingKind, (&inputs{api: &embeddingsAPI}).read)
}

// CheckRemove implements format.Ruled.
func (embeddings) CheckRemove(name string) (bool, error) { return checkRemove(name, embeddingKind) }

// CheckSet implements format.Ruled.
func (rerank) CheckSet(name string, value []byte) (bool, error) {
	return checkSet(name, value, rerankKind, (&inputs{api: &rerankAPI}).read)
}

// CheckRemove implements format.Ruled.
func (rerank) CheckRemove(name string) (bool, error) { return checkRemove(name, rerankKind) }

// CheckSet implements format.Ruled.
func (score) CheckSet(name string, value []byte) (bool, error) {
	return checkSet(name, value, scoreKind, (&inputs{api: &scoreAPI}).read)
}

// CheckRemove implements format.Ruled.
func (score) CheckRemove(name string) (bool, error) { return checkRemove(name, scoreKind) }
