// Package stagelog keeps the log of each attempt at a stage in the bucket,
// while it is written and for good, and reads it from there.
//
// S3 cannot append. So a log that is being written is a sequence of small
// objects below "live/", and once it is complete one object below "runs/" with
// all of it ([ID.Key]). What is below live/ is of no use afterwards and may be
// left to a lifecycle rule.
//
// Every process that works on an attempt writes objects of its own, named
// after its number: nobody overwrites what somebody else has written, and a
// process that is killed loses what it has not uploaded yet, which is what was
// logged during [DefaultEvery] and one upload.
package stagelog
