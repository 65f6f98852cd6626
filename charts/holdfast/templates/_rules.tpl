{{/* What the operator does in a namespace, and nothing more: the API server's audit log is compared with it
     (e2e/test_audit.py). Secrets are listed and watched by the label of our own. */}}
{{- define "holdfast.rules" -}}
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters, holdfastcells]
  verbs: [get, list, watch]
- apiGroups: [holdfast.dev]
  resources: [holdfastedgepools, holdfastconfigs]
  verbs: [list, watch]
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters/status, holdfastedgepools/status, holdfastconfigs/status, holdfastcells/status]
  verbs: [update]
# Owner references that block deletion need this where the admission plug-in asks for it.
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters/finalizers, holdfastedgepools/finalizers, holdfastcells/finalizers]
  verbs: [update]
- {apiGroups: [""], resources: [pods], verbs: [list, watch, delete]}
- {apiGroups: [""], resources: [pods/eviction], verbs: [create]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [list, watch, patch, delete]}
- {apiGroups: [""], resources: [services], verbs: [get, list, watch, create, update, patch, delete]}
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [events], verbs: [create]}
- {apiGroups: [apps], resources: [statefulsets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, create, patch]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch, create, patch, delete]}
{{- end }}
