// Package redact keeps known secrets out of everything people read: a [Secret]
// cannot be printed by accident, and a [Writer] replaces the values a
// [Redactor] knows in a stream, also where a value is split over writes.
//
// It does not guess what a secret looks like; it hides values it was told.
package redact
