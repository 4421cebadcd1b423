package record

import _ "embed"

//go:embed run-record.schema.json
var schema []byte

// Schema returns the published JSON schema (draft-07) of a run's record.
func Schema() []byte { return append([]byte(nil), schema...) }
