package aws

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// decodeFired decodes the proxy's list of events.
func decodeFired(body []byte) ([]Fault, error) {
	var events []json.RawMessage
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, fmt.Errorf("decode fired faults: %w", err)
	}
	faults := make([]Fault, 0, len(events))
	for _, event := range events {
		fault := Fault{Raw: event}
		if err := json.Unmarshal(event, &fault); err != nil {
			return nil, fmt.Errorf("decode fired fault %s: %w", event, err)
		}
		faults = append(faults, fault)
	}
	return faults, nil
}

// checkAccepted compares rules sent with the rules the proxy then had. It
// takes a rule with a misspelt key as one that matches everything and does
// nothing, which would make a test pass for the wrong reason.
func checkAccepted(sent, answer []byte) error {
	var wanted, accepted []map[string]json.RawMessage
	if err := json.Unmarshal(sent, &wanted); err != nil {
		return fmt.Errorf("rules are not a JSON array of objects: %w", err)
	}
	if err := json.Unmarshal(answer, &accepted); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	if len(accepted) < len(wanted) {
		return fmt.Errorf("%d rules were sent, %d are there", len(wanted), len(accepted))
	}
	// New rules are appended.
	for i, got := range accepted[len(accepted)-len(wanted):] {
		for key := range wanted[i] {
			if _, ok := got[key]; !ok {
				known := make([]string, 0, len(got))
				for k := range got {
					known = append(known, k)
				}
				slices.Sort(known)
				return fmt.Errorf("rule %s: the proxy ignored the key %s (it kept %v)", strconv.Itoa(i), key, known)
			}
		}
	}
	return nil
}
