from __future__ import annotations
import functools
import torch, torch.nn.functional as F
from torch import Tensor

MODE='gather'
class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x,index,inverse):
        ctx.save_for_backward(index,inverse); return x[index]
    @staticmethod
    def backward(ctx,g):
        index,inverse=ctx.saved_tensors
        return g[inverse],None,None
class Ungather(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x,index,inverse,pad):
        ctx.save_for_backward(index,pad); return x[inverse]
    @staticmethod
    def backward(ctx,g):
        index,pad=ctx.saved_tensors
        return g[index].masked_fill_(pad[:,None,None],0),None,None,None

@functools.lru_cache(maxsize=16)
def groups(lengths, ratio=1.3, floor=16):
    starts=[0]
    for l in lengths: starts.append(starts[-1]+l)
    order=sorted(range(len(lengths)),key=lambda i:lengths[i],reverse=True)
    out=[];i=0
    while i<len(order):
        top=lengths[order[i]]; j=i
        while j<len(order) and lengths[order[j]]*ratio+floor>=top: j+=1
        out.append((j-i,top)); 
        i=j
    index=[];pad=[]; inverse=torch.empty(starts[-1],dtype=torch.long); slot=0; i=0
    for n,top in out:
        for r in order[i:i+n]:
            s,l=starts[r],lengths[r]
            a=torch.arange(s,s+l); inverse[s:s+l]=torch.arange(slot,slot+l)
            index.append(a); index.append(torch.full((top-l,),s+l-1)); pad+= [False]*l+[True]*(top-l)
            slot+=top
        i+=n
    return out,torch.cat(index),inverse,torch.tensor(pad)
@functools.lru_cache(maxsize=64)
def cm(L,dt): return torch.full((L,L),float('-inf')).triu(1).to(dt)
def core(q,k,v):
    if q.dtype==torch.bfloat16:
        s=torch.matmul(q*q.shape[-1]**-0.5,k.transpose(-1,-2))+cm(q.shape[-2],q.dtype)
        return s.softmax(-1)@v
    return F.scaled_dot_product_attention(q,k,v,is_causal=True)
class Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx,q,k,v,lengths):
        ctx.save_for_backward(q,k,v); ctx.lengths=lengths
        out=torch.empty_like(q,memory_format=torch.contiguous_format); a=0
        sc=q.shape[-1]**-0.5
        for l in lengths:
            q_,k_,v_=(t[a:a+l].transpose(0,1) for t in (q,k,v))
            p=torch.baddbmm(cm(l,q.dtype),q_,k_.transpose(1,2),alpha=sc).softmax(-1)
            out[a:a+l].transpose(0,1).copy_(torch.bmm(p,v_)); a+=l
        return out
    @staticmethod
    def backward(ctx,g):
        q,k,v=ctx.saved_tensors; a=0; sc=q.shape[-1]**-0.5
        dq,dk,dv=(torch.empty(t.shape,dtype=t.dtype) for t in (q,k,v))
        for l in ctx.lengths:
            q_,k_,v_,g_=(t[a:a+l].transpose(0,1) for t in (q,k,v,g))
            p=torch.baddbmm(cm(l,q.dtype),q_,k_.transpose(1,2),alpha=sc).softmax(-1)
            dv[a:a+l].transpose(0,1).copy_(torch.bmm(p.transpose(1,2),g_))
            dp=torch.bmm(g_,v_.transpose(1,2))
            ds=torch._softmax_backward_data(dp,p,-1,p.dtype)*sc
            dq[a:a+l].transpose(0,1).copy_(torch.bmm(ds,k_))
            dk[a:a+l].transpose(0,1).copy_(torch.bmm(ds.transpose(1,2),q_)); a+=l
        return dq,dk,dv,None
def attend(q,k,v,layout,backend):
    lengths=layout.lengths
    if MODE=='flash':
        out=[];a=0
        for l in lengths:
            q_,k_,v_=(t[a:a+l].transpose(0,1)[None] for t in (q,k,v))
            out.append(F.scaled_dot_product_attention(q_,k_,v_,is_causal=True)[0].transpose(0,1)); a+=l
        return torch.cat(out)
    if MODE=='loop': return Loop.apply(q,k,v,lengths)
    gs,index,inverse,pad=groups(lengths)
    Q,K,V=(Gather.apply(t,index,inverse) for t in (q,k,v))
    outs=[];a=0
    for n,top in gs:
        q_,k_,v_=(t[a:a+n*top].view(n,top,*t.shape[1:]).transpose(1,2) for t in (Q,K,V))
        outs.append(core(q_,k_,v_).transpose(1,2).flatten(0,1)); a+=n*top
    return Ungather.apply(torch.cat(outs),index,inverse,pad)
