package archive

import (
	"archive/zip"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"
)

// zipTime returns the first moment a zip file can express. The CDK uses the
// same, so that an asset's bytes do not depend on when it was made.
func zipTime() time.Time { return time.Date(1980, time.January, 1, 0, 0, 0, 0, time.UTC) }

// Folder is a folder to be packaged as a zip archive, with the files that were
// in it when it was listed.
type Folder struct {
	dir   string
	files []zipFile
}

// List lists the files below dir as CDK asset packaging does: dot files
// included, symbolic links replaced by what they point to.
//
// A link that leads out of dir, dangles or leads into itself is an error that
// names it: dir may have been written by somebody who is not allowed to read
// what else this process can.
func List(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	f := &Folder{dir: dir}
	if err := collect(root, ".", nil, &f.files); err != nil {
		return nil, err
	}
	slices.SortFunc(f.files, func(a, b zipFile) int { return cmp.Compare(a.name, b.name) })
	return f, nil
}

// What a zip archive has beside the compressed bytes: headers of each entry,
// which name it twice, and an end. What cannot be compressed grows by less than
// one in 1024.
const entrySize, endSize, growth = 256, 128, 1024

// Bound returns a size that the archive does not exceed.
func (f *Folder) Bound() int64 {
	bound := int64(endSize)
	for _, file := range f.files {
		bound += file.info.Size() + file.info.Size()/growth + 2*int64(len(file.name)) + entrySize
	}
	return bound
}

// Zip writes the archive to w: no entries for directories, permission bits
// kept, all times 1980-01-01. Entries are sorted by path, so that equal trees
// give equal bytes.
//
// Errors: ErrChanged if a file is not the one that was listed.
func (f *Folder) Zip(w io.Writer) error {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	writer := zip.NewWriter(w)
	buffer := make([]byte, 128<<10)
	for _, file := range f.files {
		if err := addFile(writer, root, file, buffer); err != nil {
			return fmt.Errorf("package %s: %w", file.name, err)
		}
	}
	return writer.Close()
}

type zipFile struct {
	name string
	info fs.FileInfo
}

// collect appends the files below dir; above are the directories on the way
// to it, to notice a link to one of them.
func collect(root *os.Root, dir string, above []fs.FileInfo, files *[]zipFile) error {
	info, err := root.Stat(dir)
	if err != nil {
		return fmt.Errorf("package %s: %w", dir, err)
	}
	for _, ancestor := range above {
		if os.SameFile(ancestor, info) {
			return fmt.Errorf("package %s: the symbolic link leads to a directory that contains it", dir)
		}
	}
	handle, err := root.Open(dir)
	if err != nil {
		return fmt.Errorf("package %s: %w", dir, err)
	}
	names, err := handle.Readdirnames(-1)
	if err = errors.Join(err, handle.Close()); err != nil {
		return fmt.Errorf("package %s: %w", dir, err)
	}
	slices.Sort(names)
	above = append(slices.Clone(above), info)
	for _, base := range names {
		name := path.Join(dir, base)
		info, err := root.Stat(name)
		switch {
		case err != nil:
			return fmt.Errorf("package %s: %w", name, explainLink(root, name, err))
		case info.IsDir():
			if err := collect(root, name, above, files); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			*files = append(*files, zipFile{name: name, info: info})
		default:
			return fmt.Errorf("package %s: neither a file nor a directory (%s)", name, info.Mode().Type())
		}
	}
	return nil
}

// explainLink adds where the link points, the one thing needed to mend it.
func explainLink(root *os.Root, name string, err error) error {
	target, linkErr := root.Readlink(name)
	if linkErr != nil {
		return err
	}
	return fmt.Errorf("symbolic link to %q, which must be a file inside the asset: %w", target, err)
}

func addFile(writer *zip.Writer, root *os.Root, entry zipFile, buffer []byte) error {
	header := &zip.FileHeader{Name: entry.name, Method: zip.Deflate, Modified: zipTime()}
	header.SetMode(entry.info.Mode().Perm())
	target, err := writer.CreateHeader(header)
	if err != nil {
		return err
	}
	file, err := openSame(root, entry.name, entry.info)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{target}, file, buffer)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if n != entry.info.Size() {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrChanged, n, entry.info.Size())
	}
	return nil
}
