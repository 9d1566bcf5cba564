package sqlite

import "syscall"

// magics are the numbers of file systems that are a danger to a database. Most are from linux/magic.h.
var magics = map[uint32]struct {
	name string
	kind fileKind
}{
	0x6969: {"nfs", remote}, 0x517b: {"smb", remote}, 0xff534d42: {"cifs", remote}, 0xfe534d42: {"smb2", remote},
	0x01021997: {"9p", remote}, 0x65735546: {"fuse", remote}, 0x00c36400: {"ceph", remote}, 0x5346414f: {"afs", remote},
	0x0bd00bd0: {"lustre", remote}, 0x47504653: {"gpfs", remote}, 0x01161970: {"gfs2", remote},
	0x7461636f: {"ocfs2", remote},
	0x01021994: {"tmpfs", volatile}, 0x858458f6: {"ramfs", volatile},
	0x794c7630: {"overlayfs", layered}, 0x61756673: {"aufs", layered},
}

// fileSystem returns the name and kind of a folder's file system if it is one to warn of. Otherwise it returns "" and
// local.
func fileSystem(folder string) (name string, kind fileKind) {
	var st syscall.Statfs_t
	if syscall.Statfs(folder, &st) != nil {
		return "", local // opening the file in the folder will say why
	}
	m := magics[uint32(st.Type)]
	return m.name, m.kind
}
