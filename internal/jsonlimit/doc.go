// Package jsonlimit bounds how deep JSON from outside may be nested, before
// anything decodes it: what walks through the values recursively then need not
// be afraid of them.
package jsonlimit
