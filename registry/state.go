package registry

import (
	"cmp"
	"slices"
)

// searchID finds an instance, or its place, in a slice sorted by id.
func searchID(instances []*Instance, id string) (int, bool) {
	return slices.BinarySearchFunc(instances, id, func(i *Instance, id string) int { return cmp.Compare(i.ID, id) })
}
