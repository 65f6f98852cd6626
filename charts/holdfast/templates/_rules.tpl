{{/* What the operator does in a namespace, and nothing more. Secrets are never listed or watched. */}}
{{- define "holdfast.rules" -}}
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters, holdfastedgepools, holdfastconfigs]
  verbs: [get, list, watch]
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters/status, holdfastedgepools/status, holdfastconfigs/status]
  verbs: [update]
# Owner references that block deletion need this where the admission plug-in asks for it.
- apiGroups: [holdfast.dev]
  resources: [holdfastclusters/finalizers, holdfastedgepools/finalizers]
  verbs: [update]
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, delete]}
- {apiGroups: [""], resources: [pods/eviction], verbs: [create]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, patch, delete]}
- {apiGroups: [""], resources: [services], verbs: [get, list, watch, create, update, patch]}
- {apiGroups: [""], resources: [secrets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [events], verbs: [create]}
- {apiGroups: [apps], resources: [statefulsets], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [policy], resources: [poddisruptionbudgets], verbs: [get, list, watch, create, patch, delete]}
{{- end }}
