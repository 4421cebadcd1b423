package cfn

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// identity names everything one execution does to one stack. Change set names
// and tokens must match [a-zA-Z][-a-zA-Z0-9]* and have at most 128 characters.
type identity struct{ digest string }

func newIdentity(execution, account, region, stack string) identity {
	return identity{digest: digestOf(execution, account, region, stack)[:24]}
}

// changeSet is the name of the change set of a generation, counted from 1.
func (i identity) changeSet(generation int) string {
	return fmt.Sprintf("aphex-%s-%d", i.digest, generation)
}

// token makes a request recognisable: asked twice, it is the same request.
func (i identity) token(purpose string, generation int) string {
	return fmt.Sprintf("aphex-%s-%s-%d", purpose, i.digest, generation)
}

// entry is the name of the journal entry of a stack.
func entryName(account, region, stack string) string {
	return "stack-" + digestOf(account, region, stack)[:16]
}

const descriptionPrefix = "aphex, inputs sha256:"

// description is what a change set says about itself: the digest of what it
// was made from.
func description(in Input, t template) string {
	data, err := json.Marshal([]any{string(t.canonical), in.Parameters, in.Tags, in.RoleARN, in.NotificationARNs})
	if err != nil { // strings, maps of strings and slices of strings always marshal
		panic(err)
	}
	sum := sha256.Sum256(data)
	return descriptionPrefix + hex.EncodeToString(sum[:])
}

func digestOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
