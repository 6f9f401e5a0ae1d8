// Package process runs real programs for the demo and for the tests that need
// them: it starts them in process groups of their own with their output in a
// file, waits for conditions, cuts what connects them, and sees to it that
// nothing outlives whoever started it. Linux only: that is where the parent's
// death can be noticed.
//
// It knows nothing of what the programs do. The product does not import it.
package process
