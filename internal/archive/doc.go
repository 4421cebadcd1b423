// Package archive reads and writes the archives aphex moves trees with: tar
// streams, and the deterministic zip files of CDK assets.
//
// Every file operation goes through an [os.Root], so neither a hostile archive
// nor a tree full of symbolic links can make it touch anything outside the
// directory it was given. It does not compress tar streams; callers do.
package archive
