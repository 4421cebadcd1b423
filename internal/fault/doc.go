// Package fault holds the one error type that crosses package borders: what
// was being done, what went wrong, who has to act and what to do next.
//
// It knows nothing of any other package of the module and everything may
// import it.
package fault
