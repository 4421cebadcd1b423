// Package storetest holds the checks that every object store of the product
// must pass. It is imported by tests only.
package storetest
