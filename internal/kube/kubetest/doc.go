// Package kubetest is a small API server for tests: a real HTTP endpoint with
// the semantics the product relies on, and nothing else.
//
// It keeps objects of any kind with resource versions, refuses outdated
// updates, serves watches from a resource version on, merge patches with a UID
// precondition, and server-side apply with field ownership by leaf. It knows no
// schema, no defaults and no admission. What a real server would do beyond that
// is for the end-to-end tests.
//
// Importable from tests only.
package kubetest
