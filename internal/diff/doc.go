// Package diff compares what CloudFormation has with what an app wants, and
// shows the result to people (text and Markdown) and machines (JSON).
//
// It is pure: both sides are given to it, and nothing is asked or written. What
// a template alone cannot tell, such as whether a change replaces a resource,
// it leaves open; Stack.AddChangeSet fills in what CloudFormation says.
package diff
